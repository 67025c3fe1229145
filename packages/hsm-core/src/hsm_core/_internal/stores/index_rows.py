# SPDX-License-Identifier: MIT
"""Index entries as rows of a database; what is read is not trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from sys import intern
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from hsm_core._internal.keyring.documents import is_key_id
from hsm_core._internal.stores.keys import KeyEntries, claimed
from hsm_core.errors import IntegrityError, KeyTamperedError
from hsm_core.model import KeyId
from hsm_core.protocols import BUCKETS, IndexEntry, KeyDigest, StoreAccount

Row: TypeAlias = tuple[Any, ...]
"""Values of a row. Nothing of them is trusted."""


class Rows(Protocol):
    """Connection to a database, for statements with ``?`` for their values."""

    def rows(self, statement: str, values: Sequence[object] = (), /) -> list[Row]:
        """Return all rows of a statement, which changes nothing."""
        ...


ROWS_AT_ONCE: Final = 256

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
    raise KeyTamperedError(
        "The index of the key store was tampered with.", key_id=str(facts[0])
    )


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


_GENERATION: Final = (
    "SELECT generation FROM keys WHERE key_id = ? AND created_at IS NOT NULL"
)
_KNOWS: Final = "SELECT 1 FROM keys WHERE key_id = ? AND created_at IS NOT NULL"
_HOLDER: Final = "SELECT key_id FROM keys WHERE claim = ?"
_DIGESTS: Final = (
    "SELECT key_id, generation, digest FROM keys "
    "WHERE key_id > ? AND key_id < ? AND created_at IS NOT NULL "
    "ORDER BY key_id LIMIT ?"
)


class RowEntries(KeyEntries):
    """
    Index in the table ``keys`` of a database.

    Args:
        reading: The database.
    """

    def __init__(self, reading: Rows) -> None:
        self._reading = reading
        self._unlisted: set[KeyId] = set()

    def knows(self, key_id: KeyId, /) -> bool:
        """Return whether a key has an entry."""
        return is_key_id(key_id) and bool(self._reading.rows(_KNOWS, (key_id,)))

    def generation(self, key_id: KeyId, /) -> int | None:
        """Return the generation of a key, or what stands there; None without entry."""
        found = self._reading.rows(_GENERATION, (key_id,))
        return found[0][0] if found else None

    def holder(self, name: str, /) -> KeyId | None:
        """Return the key, not destroyed, that has a name."""
        found = self._reading.rows(_HOLDER, (name,))
        return KeyId(found[0][0]) if found else None

    def digests(self, bucket: int | None, /) -> Iterator[KeyDigest]:
        """Return generation and digest of all keys, or of those of one bucket."""
        last, end = ("", "g") if bucket is None else _bounds(bucket)
        while page := self._digests_behind(_DIGESTS, (last, end, ROWS_AT_ONCE)):
            last = page[-1][0]
            for key_id, generation, digest in page:
                if is_key_id(key_id):
                    yield _digest_of(KeyId(key_id), generation, digest)

    def _digests_behind(self, statement: str, values: Row) -> list[Row]:
        return self._reading.rows(statement, values)

    def mark(self, key_id: KeyId, /) -> None:
        """Do nothing: a change that does not come about is rolled back."""

    def abort(self, operation_id: str, /) -> None:
        """Do nothing: the abort mark is a row that `find_operation` looks for."""

    def rebuild(self, entries: Iterable[IndexEntry], /) -> None:
        """Replace all entries, in any order."""
        self.replace(entries)


def _bounds(bucket: int) -> tuple[str, str]:
    return f"{bucket:03x}", f"{bucket + 1:03x}" if bucket + 1 < BUCKETS else "g"


def _digest_of(key_id: KeyId, generation: object, digest: object) -> KeyDigest:
    # What we don't write is no generation and no digest of any document.
    return KeyDigest(
        key_id,
        generation if isinstance(generation, int) else -1,
        digest if isinstance(digest, str) else "",
    )


def readable(row: Row | None) -> IndexEntry | None:
    """Return the entry of a row (number, claim, `COLUMNS`); None if it has none."""
    if row is None or not is_listed(row):
        return None
    try:
        return read_entry(row)
    except KeyTamperedError:
        return None


def has_its_name(
    claim: object, entry: IndexEntry, find: Callable[[str], Row | None]
) -> bool:
    """
    Return whether the index finds a key by its name, if it has one.

    Args:
        claim: What the key's row has.

        entry: The key's entry.

        find: Returns the row that has a name.
    """
    name = claimed(entry) or None
    if claim == name or claim is not None or name is None:
        return claim == name
    # Another that says that it has this name, too, may have had it before.
    other = readable(find(name))
    return other is not None and claimed(other) == name
