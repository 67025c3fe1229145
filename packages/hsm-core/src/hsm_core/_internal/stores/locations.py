# SPDX-License-Identifier: MIT
"""
Key stores by what the setting says: a kind, or a URI.

Our own schemes come first, and nothing that is installed can take their place.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from hsm_core._internal.stores.entry_points import (
    KEY_STORES,
    VAULTS,
    find_opener,
    schemes,
)
from hsm_core._internal.stores.filesystem.keys import FilesystemKeyStore
from hsm_core._internal.stores.guard import GuardedKeyStore, GuardedUseCounters
from hsm_core._internal.stores.memory.keys import MemoryKeyStore
from hsm_core._internal.stores.memory.uses import MemoryUseCounters
from hsm_core._internal.stores.remote.keys import RemoteKeyStore
from hsm_core._internal.stores.s3 import open_s3
from hsm_core.errors import ConfigurationError, HSMError, StoreUnavailableError
from hsm_core.protocols import Clock, Entropy, OpenedStore, RemoteKeyVault
from hsm_core.settings import KeyStoreKind, Settings

__all__ = ["open_key_store", "open_vault_store"]

_FIELD: Final = "key_store"
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{0,63}")
_NOT_VISIBLE: Final = re.compile(r"[^!-~]")


@dataclass(frozen=True, slots=True)
class _Place:
    """
    What a store is opened with.

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
                f"{_FIELD}: a path must follow the colon.", field=_FIELD
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
    opener = _BUILT_IN.get(scheme)
    if opener is not None:
        return opener(place)
    if not _SCHEME.fullmatch(scheme) or not colon:
        raise _unknown(scheme)
    found = find_opener((KEY_STORES, VAULTS), scheme, field=_FIELD)
    if found is None:
        raise _unknown(scheme)
    group, load = found
    opened = _call(load, scheme, rest)
    if group == VAULTS:
        return open_vault_store(
            _as_vault(opened, scheme), settings.node, clock, entropy
        )
    if not isinstance(opened, OpenedStore):
        raise ConfigurationError(
            f"{_FIELD}: the entry point {scheme} opened no key store.", field=_FIELD
        )
    return _guarded(opened)


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
        raise ConfigurationError(
            f"{_FIELD}: a store in memory has no place.", field=_FIELD
        )
    return OpenedStore(MemoryKeyStore(), MemoryUseCounters())


def _open_filesystem(place: _Place) -> OpenedStore:
    store = FilesystemKeyStore(place.path(place.settings.key_dir))
    return _guarded(OpenedStore(store, store.uses))


def _open_s3(place: _Place) -> OpenedStore:
    vault = open_s3(place.rest or "")
    return open_vault_store(vault, place.settings.node, place.clock, place.entropy)


_BUILT_IN: Final[dict[str, _Opener]] = {
    KeyStoreKind.FILESYSTEM.value: _open_filesystem,
    KeyStoreKind.MEMORY.value: _open_memory,
    "s3": _open_s3,
}


def _guarded(opened: OpenedStore) -> OpenedStore:
    return OpenedStore(GuardedKeyStore(opened.keys), GuardedUseCounters(opened.uses))


def _call(load: object, scheme: str, rest: str) -> object:
    if not callable(load):
        raise ConfigurationError(
            f"{_FIELD}: the entry point {scheme} is nothing that opens.", field=_FIELD
        )
    try:
        opened: object = load(rest)
    except HSMError:
        raise
    except Exception as error:
        raise StoreUnavailableError(
            f"The key store at {scheme}: can't be opened ({type(error).__name__})."
        ) from error
    return opened


def _as_vault(opened: object, scheme: str) -> RemoteKeyVault:
    if not isinstance(opened, RemoteKeyVault):
        raise ConfigurationError(
            f"{_FIELD}: the entry point {scheme} opened no vault.", field=_FIELD
        )
    return opened


def _unknown(scheme: str) -> ConfigurationError:
    known = ", ".join(sorted(_BUILT_IN.keys() | schemes((KEY_STORES, VAULTS))))
    return ConfigurationError(
        f"{_FIELD} names no key store: there is none for {scheme!r}, but for {known}.",
        field=_FIELD,
    )
