# SPDX-License-Identifier: MIT
"""
Store settings: open a store by kind or URI.

Built-in schemes come first; installed packages can't override them. Of the openers of
other distributions only the requested one is loaded, and a scheme that two of them
offer is refused as ambiguous.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from hsm_core._internal.lib.plugins import load_plugin, plugin_names
from hsm_core._internal.stores.filesystem.stores import (
    FileApprovalStore,
    FilesystemKeyStore,
)
from hsm_core._internal.stores.guard import guarded
from hsm_core._internal.stores.memory.records import (
    MemoryApprovalStore,
    MemoryKeyStore,
    MemoryUseCounters,
)
from hsm_core._internal.stores.remote.records import RemoteKeyStore
from hsm_core._internal.stores.s3 import open_s3
from hsm_core._internal.stores.sqlite.records import SqliteApprovalStore, SqliteKeyStore
from hsm_core.errors import ConfigurationError, HSMError, StoreUnavailableError
from hsm_core.protocols import (
    ApprovalStore,
    Clock,
    Entropy,
    OpenedStore,
    RemoteKeyVault,
)
from hsm_core.settings import ApprovalStoreKind, KeyStoreKind, Settings

APPROVAL_STORES: Final = "hsm_core.approval_stores"
KEY_STORES: Final = "hsm_core.key_stores"
VAULTS: Final = "hsm_core.vaults"

_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{0,63}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Opener:
    """
    Opener of one scheme.

    Attributes:
        group: Where it was found.
        scheme: Its name.
        field: The setting that asked for it.
    """

    group: str
    scheme: str
    field: str
    _load: object

    def open(self, location: str, kind: type[T]) -> T:
        """
        Open what lies at a place.

        Raises:
            ConfigurationError: It is nothing that opens a *kind*.
            StoreUnavailableError: It failed in a way that is not documented.
        """
        if not callable(self._load):
            raise self._wrong()
        try:
            opened: object = self._load(location)
        except HSMError:
            raise
        except (Exception, SystemExit) as error:
            raise StoreUnavailableError(
                f"{self.field}: the opener of {self.scheme}: failed "
                f"({type(error).__name__})."
            ) from error
        if not isinstance(opened, kind):
            raise self._wrong()
        return opened

    def _wrong(self) -> ConfigurationError:
        return ConfigurationError(
            f"{self.field}: the entry point {self.scheme} did not return an "
            f"object of the group {self.group}.",
            field=self.field,
        )


def find_opener(
    groups: Iterable[str], scheme: str, *, field: str, known: Iterable[str]
) -> Opener:
    """
    Load what opens a scheme.

    Args:
        groups: Where it may be offered.

        scheme: Name of the entry point.

        field: The setting that asks for it.

        known: What there is besides, for the error.

    Raises:
        ConfigurationError: Nobody offers it, several distributions do, or it can't be
            loaded.
    """
    groups = tuple(groups)
    loaded = None
    if _SCHEME.fullmatch(scheme):
        loaded = load_plugin(groups, scheme, field=field, noun="scheme")
    if loaded is None:
        available = ", ".join(sorted({*known, *plugin_names(groups)}))
        raise ConfigurationError(
            f"{field}: unknown scheme {scheme[:64]!r}. Available: {available}.",
            field=field,
        )
    return Opener(loaded[0], scheme, field, loaded[1])


_KEYS: Final = "key_store"
_APPROVALS: Final = "approval_store"
_NOT_VISIBLE: Final = re.compile(r"[^!-~]")


@dataclass(frozen=True, slots=True)
class _Place:
    """
    Arguments for opening a store.

    Attributes:
        rest: What follows the scheme and its colon; None without a colon.
    """

    rest: str | None
    settings: Settings
    clock: Clock
    entropy: Entropy

    def path(self, usual: Path) -> Path:
        """Return the path that is named, or the usual one."""
        if self.rest is None:
            return usual
        if not self.rest or "\0" in self.rest:
            raise ConfigurationError(
                f"{_KEYS}: a path must follow the colon.", field=_KEYS
            )
        return Path(self.rest)


_Opener: TypeAlias = Callable[[_Place], OpenedStore]


def open_key_store(settings: Settings, clock: Clock, entropy: Entropy) -> OpenedStore:
    """
    Open the key store that the settings name.

    Raises:
        ConfigurationError: There is no such scheme, it can't be loaded, or the place
            has not the form that it must have.
        StoreLockedError: Another process has it open.
        StoreUnavailableError: It can't be read or written.
    """
    scheme, colon, rest = settings.key_store.partition(":")
    place = _Place(rest if colon else None, settings, clock, entropy)
    built_in = _BUILT_IN.get(scheme)
    if built_in is not None:
        return built_in(place)
    opener = find_opener((KEY_STORES, VAULTS), scheme, field=_KEYS, known=_BUILT_IN)
    if opener.group == VAULTS:
        # mypy: what can be opened is known by its methods alone.
        vault = opener.open(rest, RemoteKeyVault)  # type: ignore[type-abstract]
        return open_vault_store(vault, settings.node, clock, entropy)
    return _guarded(opener.open(rest, OpenedStore))


def open_approval_store(settings: Settings) -> ApprovalStore:
    """
    Open the store of approvals that the settings name.

    Raises:
        ConfigurationError: There is no such scheme, it can't be loaded, or the place
            has not the form that it must have.
        StoreLockedError: Another process has it open.
        StoreUnavailableError: It can't be read or written.
    """
    try:
        return _open_approvals(settings)
    except StoreUnavailableError as error:
        if str(error) != type(error).sentence:
            raise
        raise type(error)("The approval store is not available.") from error


def _open_approvals(settings: Settings) -> ApprovalStore:
    match settings.approval_store:
        case ApprovalStoreKind.MEMORY:
            return MemoryApprovalStore()
        case ApprovalStoreKind.FILE:
            return guarded(FileApprovalStore(settings.approval_dir))
        case ApprovalStoreKind.SQLITE:
            path = settings.approval_sqlite_path
            return guarded(SqliteApprovalStore(path))
        case location:
            scheme, _, rest = location.partition(":")
            if scheme in frozenset(ApprovalStoreKind):
                raise ConfigurationError(
                    f"{_APPROVALS}: {scheme} takes no path; its path is a "
                    "separate setting.",
                    field=_APPROVALS,
                )
            opener = find_opener(
                (APPROVAL_STORES,), scheme, field=_APPROVALS, known=ApprovalStoreKind
            )
            store = opener.open(rest, ApprovalStore)  # type: ignore[type-abstract]
            return guarded(store)


def open_vault_store(
    vault: RemoteKeyVault, node: str, clock: Clock, entropy: Entropy
) -> OpenedStore:
    """
    Open a key store over a vault, which is closed with it.

    Raises:
        StoreLockedError: Another process has it open.
        StoreUnavailableError: The vault can't be read or written.
    """
    name = _NOT_VISIBLE.sub("_", node or socket.gethostname())[:64]
    holder = f"{name}/{os.getpid()}/{entropy.random_bytes(8).hex()}"
    store = RemoteKeyStore(
        vault, clock=clock, entropy=entropy, holder=holder, patient=True
    )
    return _guarded(OpenedStore(store, store.uses))


def _open_memory(place: _Place) -> OpenedStore:
    if place.rest is not None:
        raise ConfigurationError(f"{_KEYS}: a memory store takes no path.", field=_KEYS)
    return OpenedStore(MemoryKeyStore(), MemoryUseCounters())


def _open_filesystem(place: _Place) -> OpenedStore:
    store = FilesystemKeyStore(place.path(place.settings.key_dir))
    return _guarded(OpenedStore(store, store.uses))


def _open_sqlite(place: _Place) -> OpenedStore:
    store = SqliteKeyStore(place.path(place.settings.sqlite_path))
    return _guarded(OpenedStore(store, store.uses, store.database.backup))


def _open_s3(place: _Place) -> OpenedStore:
    vault = open_s3(place.rest or "")
    return open_vault_store(vault, place.settings.node, place.clock, place.entropy)


_BUILT_IN: Final[dict[str, _Opener]] = {
    KeyStoreKind.FILESYSTEM.value: _open_filesystem,
    KeyStoreKind.MEMORY.value: _open_memory,
    KeyStoreKind.SQLITE.value: _open_sqlite,
    "s3": _open_s3,
}


def _guarded(opened: OpenedStore) -> OpenedStore:
    return OpenedStore(guarded(opened.keys), guarded(opened.uses), opened.backup)
