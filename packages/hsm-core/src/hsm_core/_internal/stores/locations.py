# SPDX-License-Identifier: MIT
"""
Store settings: check the paths of stores, and open a store by kind or URI.

Built-in schemes come first; installed packages can't override them. Of the openers of
other distributions only the requested one is loaded, and a scheme that two of them
offer is refused as ambiguous.

Locks or file headers would separate two stores in one file, except if one of them takes
the file for its own temporary file. So paths are checked before anything is opened or
created.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, TypeVar

import msgspec

from hsm_core._internal.lib.plugins import load_plugin, plugin_names
from hsm_core._internal.stores.filesystem import opening
from hsm_core._internal.stores.filesystem.audit_files import (
    BASELINE,
    HEAD,
    LOCK,
    NEW,
    RESERVE,
)
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
from hsm_core.settings import ApprovalStoreKind, AuditStoreKind, KeyStoreKind, Settings

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.database import ClusterDatabase

_DATABASE: Final = ("", "-wal", "-shm", "-journal", LOCK)
_DATABASE_TRAIL: Final = (*_DATABASE, HEAD, RESERVE)
_FILE_TRAIL: Final = ("", BASELINE, HEAD, LOCK, NEW, RESERVE)


class _Files(NamedTuple):
    """
    Path of a store.

    Attributes:
        field: The setting that says so.
        path: What it says.
        names: How the names of its files end, after that of the path; none if the path
            is a directory.
    """

    field: str
    path: Path
    names: tuple[str, ...] = ()


def check_apart(settings: Settings) -> None:
    """
    Check the places that stores and trail would have.

    Raises:
        ConfigurationError: One can't be a path, two have a file in common, or audit log
            or approvals lie in the directory of the keys.
    """
    taken: dict[object, str] = {}
    keys: list[Path] = []
    for place in _files_of_stores(settings):
        _check_path(place)
        if place.field in {"key_store", "key_dir"} and not place.names:
            keys = _paths(place)
        elif place.field.startswith(("audit_", "approval_")):
            _check_outside(keys, place)
        for identity, path in _identities(place):
            other = taken.setdefault(identity, place.field)
            if other != place.field:
                raise ConfigurationError(
                    f"{other} and {place.field} must not share a path: both would "
                    f"use {path}.",
                    field=place.field,
                )


def _check_outside(keys: list[Path], place: _Files) -> None:
    inside = [path for path in _paths(place) if set(keys) & set(path.parents)]
    if inside:
        raise ConfigurationError(
            f"{place.field} must be outside the directory of the keys, got "
            f"{inside[0]}.",
            field=place.field,
        )


def check_unlocked(settings: Settings) -> None:
    """
    Check that no process has a store or trail open; nothing is made, or stays locked.

    It saves a second server its self-tests. What counts is the lock that opening takes.

    Raises:
        StoreLockedError: One has.
    """
    for place in _files_of_stores(settings):
        name = place.path.name + LOCK
        is_file = bool(place.names)
        path = place.path.with_name(name) if is_file else place.path / "lock"
        opening.check_unlocked(path)


def tighten_folders(settings: Settings) -> None:
    """
    Set mode 0700 on empty folders of ours in which stores and trails are to lie.

    To be called before the first of them makes something there.
    """
    for place in _files_of_stores(settings):
        if not place.names:
            opening.tighten_directory(place.path)
        elif place.names is _FILE_TRAIL:
            opening.tighten_directory(place.path.parent)


def _files_of_stores(settings: Settings) -> Iterator[_Files]:
    scheme, colon, rest = settings.key_store.partition(":")
    if scheme == KeyStoreKind.SQLITE:
        path = Path(rest) if colon else settings.sqlite_path
        yield _Files("key_store" if colon else "sqlite_path", path, _DATABASE)
    elif scheme == KeyStoreKind.FILESYSTEM:
        path = Path(rest) if colon else settings.key_dir
        yield _Files("key_store" if colon else "key_dir", path)
    if settings.audit_store == AuditStoreKind.SQLITE:
        yield _Files("audit_sqlite_path", settings.audit_sqlite_path, _DATABASE_TRAIL)
    elif settings.audit_log is not None:
        yield _Files("audit_log", settings.audit_log, _FILE_TRAIL)
    if settings.approval_store == ApprovalStoreKind.SQLITE:
        yield _Files("approval_sqlite_path", settings.approval_sqlite_path, _DATABASE)
    elif settings.approval_store == ApprovalStoreKind.FILE:
        yield _Files("approval_dir", settings.approval_dir)
    if settings.retention_ledger is not None:
        yield _Files("retention_ledger", settings.retention_ledger, _FILE_TRAIL)
    if settings.retention_config is not None:
        yield _Files("retention_config", settings.retention_config, ("",))
    if settings.backup_dir is not None:
        yield _Files("backup_dir", settings.backup_dir)


def _check_path(place: _Files) -> None:
    is_named = place.path.name not in {"", ".."} or not place.names
    if "\0" in str(place.path) or not is_named:
        kind = "file" if place.names else "directory"
        raise ConfigurationError(
            f"{place.field} must be the path of a {kind}.", field=place.field
        )


def _identities(place: _Files) -> Iterator[tuple[object, Path]]:
    """Give what tells its files apart from all others, whatever path leads there."""
    for path in _paths(place):
        yield path, path
        try:
            found = os.stat(path)
        except OSError:
            continue
        yield (found.st_dev, found.st_ino), path


def _paths(place: _Files) -> list[Path]:
    if not place.names:
        return [Path(os.path.realpath(place.path))]
    folder = Path(os.path.realpath(place.path.parent))
    return [folder / (place.path.name + end) for end in place.names]


APPROVAL_STORES: Final = "hsm_core.approval_stores"
KEY_STORES: Final = "hsm_core.key_stores"
VAULTS: Final = "hsm_core.vaults"

_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{0,63}")

T = TypeVar("T")


class Opener(msgspec.Struct, frozen=True):
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
                f"{self.field}: the store {self.scheme}: can't be opened "
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


class _Place(msgspec.Struct, frozen=True):
    """
    Arguments for opening a store.

    Attributes:
        rest: What follows the scheme and its colon; None without a colon.
        database: Of the cluster, where all stores lie in one.
    """

    rest: str | None
    settings: Settings
    clock: Clock
    entropy: Entropy
    database: ClusterDatabase | None

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


def open_database(settings: Settings, session: str = "") -> ClusterDatabase | None:
    """
    Open the database that all stores lie in; None where the settings name none.

    Args:
        settings: Where it lies.

        session: Name of this process among the sessions of the database.

    Raises:
        ConfigurationError: It is another program's or a newer one's, its server does
            not keep what it acknowledges, or psycopg is not installed.
        IntegrityError: Its tables are not as we make them.
        StoreUnavailableError: It can't be reached.
    """
    if settings.key_store != KeyStoreKind.POSTGRESQL:
        return None
    from hsm_core._internal.stores.postgresql.connection import read_location
    from hsm_core._internal.stores.postgresql.database import ClusterDatabase

    name = session or settings.node_name
    return ClusterDatabase(read_location(settings.store, name=name))


def open_key_store(
    settings: Settings,
    clock: Clock,
    entropy: Entropy,
    database: ClusterDatabase | None = None,
) -> OpenedStore:
    """
    Open the key store that the settings name.

    Args:
        settings: Where it lies.

        clock: For leases.

        entropy: For the names of their holders.

        database: Of the cluster, if it lies in one; closed with the store.

    Raises:
        ConfigurationError: There is no such scheme, it can't be loaded, or the place
            has not the form that it must have.
        StoreLockedError: Another process has it open.
        StoreUnavailableError: It can't be read or written.
    """
    scheme, colon, rest = settings.key_store.partition(":")
    place = _Place(rest if colon else None, settings, clock, entropy, database)
    built_in = _BUILT_IN.get(scheme)
    if built_in is not None:
        return built_in(place)
    opener = find_opener((KEY_STORES, VAULTS), scheme, field=_KEYS, known=_BUILT_IN)
    if opener.group == VAULTS:
        # mypy: what can be opened is known by its methods alone.
        vault = opener.open(rest, RemoteKeyVault)  # type: ignore[type-abstract]
        return open_vault_store(vault, settings.node_name, clock, entropy)
    return _guarded(opener.open(rest, OpenedStore))


def open_approval_store(
    settings: Settings, database: ClusterDatabase | None = None
) -> ApprovalStore:
    """
    Open the store of approvals that the settings name.

    Args:
        settings: Where it lies.

        database: Of the cluster, if it lies in one; left open when the store is closed.

    Raises:
        ConfigurationError: There is no such scheme, it can't be loaded, or the place
            has not the form that it must have.
        StoreLockedError: Another process has it open.
        StoreUnavailableError: It can't be read or written.
    """
    try:
        if database is not None:
            return _open_shared_approvals(database)
        return _open_approvals(settings)
    except StoreUnavailableError as error:
        if str(error) != type(error).sentence:
            raise
        raise type(error)("The approval store is not available.") from error


def _open_shared_approvals(database: ClusterDatabase) -> ApprovalStore:
    from hsm_core._internal.stores.postgresql.records import ClusterApprovalStore

    return guarded(ClusterApprovalStore(database))


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
                    f"{_APPROVALS}: {scheme} takes no path here. Set approval_dir "
                    "(file) or approval_sqlite_path (sqlite).",
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
    name = _NOT_VISIBLE.sub("_", node or os.uname().nodename)[:64]
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
    return open_vault_store(vault, place.settings.node_name, place.clock, place.entropy)


def _open_postgresql(place: _Place) -> OpenedStore:
    from hsm_core._internal.stores.postgresql.records import ClusterKeyStore

    if place.database is None:
        raise ConfigurationError(
            f"{_KEYS} must not be postgresql. Set store, for all stores.", field="store"
        )
    store = ClusterKeyStore(place.database)
    return _guarded(OpenedStore(store, store.uses))


_BUILT_IN: Final[dict[str, _Opener]] = {
    KeyStoreKind.FILESYSTEM.value: _open_filesystem,
    KeyStoreKind.MEMORY.value: _open_memory,
    KeyStoreKind.POSTGRESQL.value: _open_postgresql,
    KeyStoreKind.SQLITE.value: _open_sqlite,
    "s3": _open_s3,
}


def _guarded(opened: OpenedStore) -> OpenedStore:
    return OpenedStore(guarded(opened.keys), guarded(opened.uses), opened.backup)
