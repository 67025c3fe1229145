# SPDX-License-Identifier: MIT
"""
Set digest: keyed sums over a store's keys, which reveal a rollback.

Each key adds a keyed hash of its id, its generation and the digest of its document to
the sum of its bucket. The sum over all buckets is the set digest that stands in the
trail; a second, keyed sum over the buckets lets none of them be forged and nothing be
moved between two. So a start compares two numbers, and a key is compared with its
bucket before it is used for the first time.

The sums hold each key's state in the audit log. If the store holds another state, the
key is *pinned*: its recorded state still counts.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core.model import KeyId
from hsm_core.protocols import (
    BUCKETS,
    AccountChange,
    KeyDigest,
    KnownKey,
    StoreAccount,
    bucket_of,
)

_FORMAT: Final = 1
_MODULUS: Final = 2**256
_VALUE_BYTES: Final = 32
_MAC_BYTES: Final = 32

Counted = KeyDigest | KnownKey
"""Key in the set digest: id, generation, digest of its document."""

_ENCODER: Final = msgspec.msgpack.Encoder()


class _Seal(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    format: int
    total: bytes
    second: bytes
    keys: int


_DECODER: Final = msgspec.msgpack.Decoder(_Seal)


class Sums(msgspec.Struct, frozen=True):
    """Sum of each bucket, and number of keys."""

    values: Sequence[int]
    keys: int

    @property
    def total(self) -> int:
        """The set digest as a number."""
        return sum(self.values) % _MODULUS


class Step(msgspec.Struct, frozen=True):
    """Prepared change of one key."""

    key_id: KeyId
    bucket: int
    value: int
    total: int
    second: int
    keys: int
    change: AccountChange


class KeySetDigest:
    """
    Set digest of one store. Thread-safe; changes are serialised.

    It is empty until `adopt` is called.

    Args:
        ring: Opened key ring.

    Attributes:
        unverified: Buckets not yet compared with their sums.
    """

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._values = [0] * BUCKETS
        self._total = 0
        self._second = self._keys = 0
        self._pinned: dict[KeyId, KnownKey | None] = {}
        self._lock = threading.Lock()
        self.unverified: set[int] = set()

    @property
    def set_digest(self) -> str:
        """Sum of keyed hashes over (key id, generation, document digest), hex."""
        return f"{self._total:064x}"

    @property
    def keys(self) -> int:
        """Number of keys."""
        return self._keys

    # Sums of what is there

    def sums(self, present: Iterable[Counted]) -> Sums:
        """Return the sums over all keys of a store."""
        values, keys, element = [0] * BUCKETS, 0, self._element
        for key in present:
            values[bucket_of(key.key_id)] += element(key)
            keys += 1
        return Sums([value % _MODULUS for value in values], keys)

    def agrees(self, bucket: int, present: Iterable[Counted]) -> bool:
        """Return whether these are the keys of a bucket, ignoring pinned ones."""
        with self._lock:
            value = self._values[bucket]
            pinned = {k: p for k, p in self._pinned.items() if bucket_of(k) == bucket}
        value -= sum(self._element(known) for known in pinned.values() if known)
        others = (key for key in present if key.key_id not in pinned)
        return (sum(map(self._element, others)) - value) % _MODULUS == 0

    def agreeing(self, present: Iterable[Counted]) -> set[int]:
        """Return the buckets of which these are the keys, ignoring pinned ones."""
        with self._lock:
            values, pinned = list(self._values), dict(self._pinned)
        for known in filter(None, pinned.values()):
            values[bucket_of(known.key_id)] -= self._element(known)
        for key in present:
            if key.key_id not in pinned:
                values[bucket_of(key.key_id)] -= self._element(key)
        return {bucket for bucket, rest in enumerate(values) if not rest % _MODULUS}

    # What is kept by the store

    def read(self, account: StoreAccount) -> Sums | None:
        """Return the sums that a store keeps, if their seal is right."""
        payload, mac = account.seal[:-_MAC_BYTES], account.seal[-_MAC_BYTES:]
        whole = len(account.values) == BUCKETS and all(
            len(value) == _VALUE_BYTES for value in account.values
        )
        if not whole or not hmac.compare_digest(mac, self._ring.account_mac(payload)):
            return None
        try:
            seal = _DECODER.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        values = [int.from_bytes(value, "big") for value in account.values]
        found = Sums(values, seal.keys)
        second = self._second_of(enumerate(values))
        as_sealed = seal.total, seal.second
        if seal.format != _FORMAT or as_sealed != (_bytes(found.total), _bytes(second)):
            return None
        return found

    def account(self) -> StoreAccount:
        """Return the sums for a store to keep."""
        with self._lock:
            values = tuple(map(_bytes, self._values))
            return StoreAccount(
                values, self._seal(self._total, self._second, self._keys)
            )

    # Changes

    def adopt(self, sums: Sums, *, verified: bool) -> None:
        """Start with sums; *verified* if they were computed from stored keys."""
        with self._lock:
            self._values = list(sums.values)
            self._total, self._keys = sums.total, sums.keys
            self._second = self._second_sum()
            self._pinned.clear()
            self.unverified = set() if verified else set(range(BUCKETS))

    def step(self, before: Counted | None, after: Counted | None) -> Step:
        """Prepare a change of one key; callers make it before preparing another."""
        key = after or before
        assert key is not None  # noqa: S101 (one of them is given)
        removed = self._element(before) if before else 0
        added = self._element(after) if after else 0
        with self._lock:
            bucket = bucket_of(key.key_id)
            old = self._values[bucket]
            value = (old - removed + added) % _MODULUS
            total = (self._total - removed + added) % _MODULUS
            part = self._ring.bucket_part
            second = (self._second - part(bucket, old) + part(bucket, value)) % _MODULUS
            keys = self._keys - (before is not None) + (after is not None)
        seal = self._seal(total, second, keys)
        change = AccountChange(bucket, _bytes(value), seal)
        return Step(key.key_id, bucket, value, total, second, keys, change)

    def make(self, step: Step) -> None:
        """Make a prepared change."""
        with self._lock:
            self._values[step.bucket] = step.value
            self._total, self._second = step.total, step.second
            self._keys = step.keys

    def replace(self, before: Counted | None, after: Counted | None) -> None:
        """Replace a key's state *before* by *after*."""
        if before or after:
            self.make(self.step(before, after))

    def preview(
        self, changes: Iterable[tuple[Counted | None, Counted | None]]
    ) -> list[str]:
        """Return the set digest after each of these changes, made one by one."""
        total, found = self._total, []
        for before, after in changes:
            total -= self._element(before) if before else 0
            total += self._element(after) if after else 0
            found.append(f"{total % _MODULUS:064x}")
        return found

    # Keys that are not as they should be

    def pin(self, key_id: KeyId, known: KnownKey | None) -> None:
        """Pin the recorded state of a key whose stored state differs."""
        with self._lock:
            self._pinned.setdefault(key_id, known)

    def unpin(self, key_id: KeyId) -> None:
        """Unpin a key whose stored state matches."""
        with self._lock:
            self._pinned.pop(key_id, None)

    @property
    def has_pinned(self) -> bool:
        """Whether the stored state of any key differs from its recorded state."""
        return bool(self._pinned)

    def is_pinned(self, key_id: KeyId) -> bool:
        """Return whether a key's stored state differs from its recorded state."""
        return key_id in self._pinned

    def pinned(self) -> Mapping[KeyId, KnownKey | None]:
        """Return the recorded state of each pinned key."""
        with self._lock:
            return dict(self._pinned)

    def doubt(self) -> None:
        """Require every bucket to be compared again before use."""
        with self._lock:
            self.unverified = set(range(BUCKETS))

    def doubt_all_but(self, present: Iterable[Counted]) -> None:
        """Require the buckets to be compared again of which these are not the keys."""
        doubtful = set(range(BUCKETS)) - self.agreeing(present)
        with self._lock:
            self.unverified |= doubtful

    def _element(self, key: Counted) -> int:
        # A foreign hand may have written any number into an index.
        generation = key.generation % 2**64
        return self._ring.set_element(key.key_id, generation, key.digest)

    def _second_sum(self) -> int:
        return self._second_of(enumerate(self._values))

    def _second_of(self, values: Iterable[tuple[int, int]]) -> int:
        return sum(self._ring.bucket_part(*item) for item in values) % _MODULUS

    def _seal(self, total: int, second: int, keys: int) -> bytes:
        seal = _Seal(_FORMAT, _bytes(total), _bytes(second), keys)
        payload = _ENCODER.encode(seal)
        return payload + self._ring.account_mac(payload)


def _bytes(value: int) -> bytes:
    return value.to_bytes(_VALUE_BYTES, "big")
