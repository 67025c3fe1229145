# SPDX-License-Identifier: MIT
"""Index entries as rows, in both directions; what is read is not trusted."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import msgspec

from hsm_core._internal.keyring.documents import read_index
from hsm_core._internal.stores.naming import is_key_id
from hsm_core._internal.stores.sqlite.database import Row
from hsm_core.errors import KeyTamperedError
from hsm_core.model import KeyId, KeyState
from hsm_core.protocols import IndexEntry

BY_ID: Final = (
    "SELECT n, claim, key_id, created_at, name, algorithm, state, tags, generation, "
    "operations, digest, owner, usages FROM keys WHERE key_id = ?"
)
BY_CLAIM: Final = (
    "SELECT n, claim, key_id, created_at, name, algorithm, state, tags, generation, "
    "operations, digest, owner, usages FROM keys WHERE claim = ?"
)
BEHIND: Final = (
    "SELECT n, claim, key_id, created_at, name, algorithm, state, tags, generation, "
    "operations, digest, owner, usages FROM keys WHERE n > ? ORDER BY n LIMIT ?"
)
NUMBERED: Final = (
    "SELECT n, key_id FROM keys WHERE n > ? AND key_id NOT GLOB '*[^0-9a-f-]*' "
    "ORDER BY n LIMIT ?"
)
# Nothing that lies there for a row that others removed may pass to a new key.
INSERT: Final = (
    "INSERT INTO keys (n, key_id, created_at, name, algorithm, state, tags, "
    "generation, operations, digest, owner, usages, claim) VALUES (1 + max("
    "coalesce((SELECT max(n) FROM keys WHERE n < 1 << 35), 0), "
    "coalesce((SELECT max(n) FROM documents WHERE n < 1 << 35), 0), "
    "coalesce((SELECT max(id) FROM blobs WHERE id < 1 << 62), 0) >> 27"
    "), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
UPDATE: Final = (
    "UPDATE keys SET key_id = ?, created_at = ?, name = ?, algorithm = ?, state = ?, "
    "tags = ?, generation = ?, operations = ?, digest = ?, owner = ?, "
    "usages = ?, claim = ? WHERE n = ?"
)

_TYPES: Final = (str, int, str, str, str, str, int, str, str, str, str)
_STRINGS: Final = msgspec.json.Decoder(tuple[str, ...])
_ENCODER: Final = msgspec.json.Encoder()
_INTEGER_LIMIT: Final = 2**63


def is_listed(row: Row) -> bool:
    """Return whether a row of `BY_ID` or `BY_CLAIM` is in the index."""
    return row[3] is not None


def read_entry(row: Row) -> IndexEntry:
    """
    Return the entry that a row of `BY_ID` or `BY_CLAIM` holds.

    Raises:
        KeyTamperedError: Its values are none that we write.
    """
    facts = row[2:]
    if tuple(map(type, facts)) == _TYPES and is_key_id(facts[0]):
        try:
            return IndexEntry(
                key_id=KeyId(facts[0]),
                created_at=facts[1],
                name=facts[2],
                algorithm=facts[3],
                state=facts[4],
                tags=frozenset(_STRINGS.decode(facts[5])),
                generation=facts[6],
                operations=_STRINGS.decode(facts[7]),
                digest=facts[8],
                owner=facts[9],
                usages=frozenset(_STRINGS.decode(facts[10])),
            )
        except (msgspec.DecodeError, UnicodeError):
            pass
    raise KeyTamperedError("The index of the key store was tampered with.")


def values_of(entry: IndexEntry) -> Row:
    """Return what `INSERT` and `UPDATE` begin with: all but claim and number."""
    return (
        entry.key_id,
        entry.created_at,
        entry.name,
        entry.algorithm,
        entry.state,
        _ENCODER.encode(sorted(entry.tags)).decode(),
        entry.generation,
        _ENCODER.encode(entry.operations).decode(),
        entry.digest,
        entry.owner,
        _ENCODER.encode(sorted(entry.usages)).decode(),
    )


def claimed(entry: IndexEntry) -> str | None:
    """Return the name that a key would have for itself, if any."""
    return entry.name or None if entry.state != KeyState.DESTROYED else None


def untrusted_entry(key_id: KeyId, document: bytes) -> IndexEntry:
    """Return index facts of a document that nobody has authenticated."""
    entry = read_index(key_id, document)
    if all(abs(n) < _INTEGER_LIMIT for n in (entry.created_at, entry.generation)):
        return entry
    # No number that we write is as long: it gets what an unreadable document gets.
    unreadable = read_index(key_id, b"")
    return replace(unreadable, digest=entry.digest)
