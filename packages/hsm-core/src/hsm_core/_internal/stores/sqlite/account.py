# SPDX-License-Identifier: MIT
"""Stored set digest of a key store: sums by bucket, and their seal; not trusted."""

from __future__ import annotations

import sqlite3

from hsm_core._internal.stores.sqlite.schema import ACCOUNT_SEAL
from hsm_core.protocols import BUCKETS, AccountChange, StoreAccount


def keep(connection: sqlite3.Connection, change: AccountChange) -> None:
    """Keep one changed sum and the new seal; within a transaction."""
    connection.execute(
        "INSERT OR REPLACE INTO account (bucket, value) VALUES (?, ?)",
        (change.bucket, change.value),
    )
    _seal(connection, change.seal)


def _seal(connection: sqlite3.Connection, seal: bytes) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (ACCOUNT_SEAL, seal)
    )


def write_all(connection: sqlite3.Connection, account: StoreAccount) -> None:
    """Replace the whole account; within a transaction."""
    connection.execute("DELETE FROM account")
    connection.executemany(
        "INSERT INTO account (bucket, value) VALUES (?, ?)", enumerate(account.values)
    )
    _seal(connection, account.seal)


def read_all(connection: sqlite3.Connection) -> StoreAccount | None:
    """
    Return the account, or None if nothing of one is there.

    A sum or seal that is missing, or is no byte string, is empty: no seal fits then.
    """
    rows = connection.execute("SELECT bucket, value FROM account").fetchall()
    sealed = connection.execute(
        "SELECT value FROM meta WHERE name = ?", (ACCOUNT_SEAL,)
    ).fetchone()
    if not rows and sealed is None:
        return None
    values = {bucket: value for bucket, value in rows if isinstance(value, bytes)}
    seal: object = sealed[0] if sealed else b""
    return StoreAccount(
        values=tuple(values.get(bucket, b"") for bucket in range(BUCKETS)),
        seal=seal if isinstance(seal, bytes) else b"",
    )
