# SPDX-License-Identifier: MIT
"""Index entries as rows of a database; what is read is not trusted."""

from __future__ import annotations

from functools import lru_cache
from sys import intern
from typing import Any, Final, TypeAlias

import msgspec

from hsm_core._internal.keyring.documents import is_key_id
from hsm_core.errors import IntegrityError, KeyTamperedError
from hsm_core.model import KeyId
from hsm_core.protocols import BUCKETS, IndexEntry, StoreAccount

Row: TypeAlias = tuple[Any, ...]
"""Values of a row. Nothing of them is trusted."""

ACCOUNT_SEAL: Final = "Account"
"""Where the account's seal lies among the named values; none of them has a capital."""

COLUMNS: Final = (
    "key_id, created_at, name, algorithm, state, tags, generation, operations, "
    "digest, owner, usages"
)
"""What `values_of` returns."""
LISTED: Final = "key_id, name, algorithm, tags, owner, usages"
"""What `read_listed` takes."""

_TYPES: Final = (str, int, str, str, str, str, int, str, str, str, str)
_STRINGS: Final = msgspec.json.Decoder(tuple[str, ...])
_SETS_REMEMBERED: Final = 4096
_ENCODER: Final = msgspec.json.Encoder()


def is_listed(row: Row) -> bool:
    """Return whether a row (number, claim, `COLUMNS`) is in the index."""
    return row[3] is not None


def read_entry(row: Row) -> IndexEntry:
    """
    Return the entry that a row (number, claim, `COLUMNS`) holds.

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
                algorithm=intern(facts[3]),
                state=intern(facts[4]),
                tags=_set_of(facts[5]),
                generation=facts[6],
                operations=_STRINGS.decode(facts[7]),
                digest=facts[8],
                owner=intern(facts[9]),
                usages=_set_of(facts[10]),
            )
        except (msgspec.DecodeError, UnicodeError):
            pass
    raise KeyTamperedError("The index of the key store was tampered with.")


@lru_cache(_SETS_REMEMBERED)
def _set_of(text: str) -> frozenset[str]:
    """Decode tags or usages; those of many keys are equal and lie in memory once."""
    return frozenset(_STRINGS.decode(text))


def values_of(entry: IndexEntry) -> Row:
    """Return the values of `COLUMNS`."""
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


def read_listed(facts: Row) -> IndexEntry:
    """
    Return what a query looks at, from the values of `LISTED`.

    Raises:
        IntegrityError: They are none that we write.
    """
    if {str} != set(map(type, facts)):
        raise IntegrityError("The index of the key store was tampered with.")
    key_id, name, algorithm, tags, owner, usages = facts
    try:
        return IndexEntry(
            key_id=KeyId(key_id),
            created_at=0,
            name=name,
            algorithm=algorithm,
            state="",
            tags=frozenset(_STRINGS.decode(tags)),
            generation=0,
            owner=owner,
            usages=frozenset(_STRINGS.decode(usages)),
        )
    except (msgspec.DecodeError, UnicodeError):
        raise IntegrityError("The index of the key store was tampered with.") from None


def account_of(rows: list[Row], sealed: Row | None) -> StoreAccount | None:
    """
    Return an account from its rows (bucket, sum) and the seal, or None without both.

    A sum or seal that is missing, or is no byte string, is empty: no seal fits then.
    """
    if not rows and sealed is None:
        return None
    values = {bucket: value for bucket, value in rows if isinstance(value, bytes)}
    seal: object = sealed[0] if sealed else b""
    return StoreAccount(
        values=tuple(values.get(bucket, b"") for bucket in range(BUCKETS)),
        seal=seal if isinstance(seal, bytes) else b"",
    )
