# SPDX-License-Identifier: MIT
"""Inspection of a local key store: read, never opened, created or changed."""

from __future__ import annotations

import sqlite3
from enum import StrEnum
from pathlib import Path
from typing import Final

from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core._internal.stores.filesystem.files import read_file
from hsm_core._internal.stores.locations import check_unlocked
from hsm_core._internal.stores.sqlite.audit_offline import read_at_rest
from hsm_core.errors import (
    IntegrityError,
    KeyRingTamperedError,
    StoreLockedError,
    StoreUnavailableError,
)
from hsm_core.protocols import MasterKeySource
from hsm_core.settings import KeyStoreKind, Settings

_MOST_BYTES: Final = 1024 * 1024
_TABLE: Final = "SELECT to_regclass('meta')"
_RING: Final = "SELECT value FROM meta WHERE name = 'ring'"


class StoreState(StrEnum):
    """State of a key store, for a root key."""

    NEW = "new"
    OPENS = "opens"
    IN_USE = "in use"
    ELSEWHERE = "elsewhere"


def inspect_ring(settings: Settings, root: MasterKeySource) -> StoreState:
    """
    Return whether a key store is new, or its key ring opens with this root.

    Args:
        settings: Where it lies. One in a vault over the network is not looked at.

        root: The root.

    Raises:
        WrongMasterKeyError: It was sealed by another root.
        KeyRingTamperedError: The ring is damaged.
        StoreUnavailableError: It can't be read.
    """
    scheme, colon, rest = settings.key_store.partition(":")
    if scheme == KeyStoreKind.MEMORY:
        return StoreState.NEW
    if scheme == KeyStoreKind.FILESYSTEM:
        blob = _in_files(Path(rest) if colon else settings.key_dir)
    elif scheme == KeyStoreKind.SQLITE:
        try:
            check_unlocked(settings)
        except StoreLockedError:
            # An HSM has the database to itself.
            return StoreState.IN_USE
        blob = _in_database(Path(rest) if colon else settings.sqlite_path)
    elif scheme == KeyStoreKind.POSTGRESQL:
        blob = _in_cluster(settings.store)
    else:
        return StoreState.ELSEWHERE
    if blob is None:
        return StoreState.NEW
    KeyRing.open(root, blob)
    return StoreState.OPENS


def _in_files(folder: Path) -> bytes | None:
    try:
        return read_file(folder / "meta" / "ring", _MOST_BYTES)
    except IntegrityError as error:
        raise KeyRingTamperedError from error


def _in_cluster(store: str) -> bytes | None:
    """
    Return the key ring in the database of a cluster, whose nodes may run.

    Raises:
        ConfigurationError: The address, or the server behind it, is not usable.
    """
    # A single machine loads nothing of this.
    from hsm_core._internal.stores.postgresql.connection import (
        connect,
        postgres_errors,
        read_location,
    )

    connection = connect(read_location(store))
    try:
        with postgres_errors():
            found = connection.execute(_TABLE).fetchone()
            if found is None or found[0] is None:
                return None
            row = connection.execute(_RING).fetchone()
    finally:
        connection.close()
    return None if row is None else bytes(row[0])


def _in_database(path: Path) -> bytes | None:
    if not path.exists():
        return None
    try:
        with read_at_rest(path) as connection:
            row = connection.execute(_RING).fetchone()
    except (sqlite3.Error, OSError) as error:
        raise StoreUnavailableError from error
    if row is None:
        return None
    if not isinstance(row[0], bytes):
        raise KeyRingTamperedError
    return row[0]
