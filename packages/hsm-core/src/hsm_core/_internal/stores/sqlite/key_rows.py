# SPDX-License-Identifier: MIT
"""Tables of a key store, and the statements on its rows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from hsm_core._internal.keyring.documents import peek
from hsm_core._internal.stores.index_rows import COLUMNS
from hsm_core._internal.stores.sqlite.connection import Schema
from hsm_core.model import KeyId

if TYPE_CHECKING:
    import sqlite_utils


VERSION_BITS: Final = 27
"""Blobs are numbered by their key's number, shifted by this, and their version."""

_DOCUMENTS: Final = (
    "SELECT keys.n, key_id, document FROM keys LEFT JOIN documents USING (n) "
    "WHERE keys.n > ? AND created_at IS NOT NULL ORDER BY keys.n LIMIT 256"
)
_LEARN: Final = "UPDATE keys SET owner = ?, usages = ? WHERE n = ?"


def _first(tables: sqlite_utils.Database) -> None:
    tables.create_table(
        "keys",
        {
            "n": int,
            "key_id": str,
            "created_at": int,
            "name": str,
            "algorithm": str,
            "state": str,
            "tags": str,
            "generation": int,
            "operations": str,
            "digest": str,
            "claim": str,
        },
        pk="n",
        not_null={"key_id"},
    )
    tables.execute("CREATE UNIQUE INDEX keys_key_id ON keys (key_id)")
    tables.execute(
        "CREATE UNIQUE INDEX keys_claim ON keys (claim) WHERE claim IS NOT NULL"
    )
    # Long values lie apart from what listings and look-ups walk over.
    tables.create_table("documents", {"n": int, "document": bytes}, pk="n")
    tables.create_table("blobs", {"id": int, "blob": bytes}, pk="id")
    # A facet is what a listing can be narrowed to, with how many keys it has; a place
    # is a key in the order of a facet.
    tables.create_table(
        "facets",
        {"id": int, "tag": str, "algorithm": str, "state": str, "number": int},
        pk="id",
        not_null={"tag", "algorithm", "state", "number"},
    )
    tables.execute("CREATE UNIQUE INDEX facets_name ON facets (tag, algorithm, state)")
    for statement in (
        "CREATE TABLE places (facet INTEGER NOT NULL, created_at INTEGER NOT NULL, "
        "key_id BLOB NOT NULL, PRIMARY KEY (facet, created_at, key_id)) WITHOUT ROWID",
        "CREATE TABLE operations (operation_id TEXT PRIMARY KEY, n INTEGER NOT NULL) "
        "WITHOUT ROWID",
        "CREATE TABLE aborted (operation_id TEXT PRIMARY KEY) WITHOUT ROWID",
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE uses (material_id TEXT PRIMARY KEY, value BLOB NOT NULL) "
        "WITHOUT ROWID",
    ):
        tables.execute(statement)
    tables.create_table("account", {"bucket": int, "value": bytes}, pk="bucket")


def _second(tables: sqlite_utils.Database) -> None:
    """Let the index know owners and usages, which a policy may ask for."""
    tables.execute("ALTER TABLE keys ADD COLUMN owner TEXT")
    tables.execute("ALTER TABLE keys ADD COLUMN usages TEXT")
    last = -1
    while rows := tables.execute(_DOCUMENTS, (last,)).fetchall():
        last = rows[-1][0]
        for number, key_id, document in rows:
            known = peek(
                KeyId(str(key_id)), document if type(document) is bytes else b""
            )
            owner, usages = (known.owner, known.usages) if known else ("", ())
            listed = json.dumps(sorted(usages))
            tables.execute(_LEARN, (owner, listed, number))


KEYS_SCHEMA: Final = Schema(application_id=0x46484B31, steps=(_first, _second))
"""Keys: ``FHK1``."""


_SELECT: Final = f"SELECT n, claim, {COLUMNS} FROM keys "  # noqa: S608 (our own names)
BY_ID: Final = _SELECT + "WHERE key_id = ?"
BY_CLAIM: Final = _SELECT + "WHERE claim = ?"
BEHIND: Final = _SELECT + "WHERE n > ? ORDER BY n LIMIT ?"
NUMBERED: Final = (
    "SELECT n, key_id FROM keys WHERE n > ? AND key_id NOT GLOB '*[^0-9a-f-]*' "
    "ORDER BY n LIMIT ?"
)
# Nothing that lies there for a row that others removed may pass to a new key.
INSERT: Final = (
    f"INSERT INTO keys (n, {COLUMNS}, claim) VALUES (1 + max("  # noqa: S608
    "coalesce((SELECT max(n) FROM keys WHERE n < 1 << 35), 0), "
    "coalesce((SELECT max(n) FROM documents WHERE n < 1 << 35), 0), "
    "coalesce((SELECT max(id) FROM blobs WHERE id < 1 << 62), 0) >> 27"
    "), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
UPDATE: Final = (
    f"UPDATE keys SET ({COLUMNS}, claim) = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608
    "WHERE n = ?"
)
