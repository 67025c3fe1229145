# SPDX-License-Identifier: MIT
"""What is counted of a store: sums that nobody without the key ring can forge."""

from __future__ import annotations

import hashlib
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core._internal.keyring.set_digest import KeySetDigest
from hsm_core.model import KeyId
from hsm_core.protocols import BUCKETS, KnownKey, StoreAccount, bucket_of
from hsm_core.testing import FakeEntropy

RING = KeyRing.create(FakeEntropy(1), log_id="00" * 16)


def key(number: int, generation: int = 1) -> KnownKey:
    """Return a key as it is counted."""
    digest = hashlib.sha256(b"%d %d" % (number, generation)).hexdigest()
    name = hashlib.sha256(b"key %d" % number).digest()[:16]
    return KnownKey(KeyId(str(UUID(bytes=name, version=4))), generation, digest)


def census_of(*keys: KnownKey) -> KeySetDigest:
    """Return a census of these keys."""
    census = KeySetDigest(RING)
    census.adopt(census.sums(keys), verified=True)
    return census


CHANGES = st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=20)


@settings(max_examples=40, deadline=None)
@given(CHANGES)
def test_changes_come_to_the_same_as_counting_anew(
    changes: list[tuple[int, bool]],
) -> None:
    """After any changes, sums and account are those of what is there."""
    census, there = census_of(), dict[int, KnownKey]()
    for number, is_removed in changes:
        before = there.pop(number, None)
        generation = before.generation + 1 if before else 1
        after = None if is_removed else key(number, generation)
        if after:
            there[number] = after
        census.replace(before, after)

    fresh = census_of(*there.values())
    assert fresh.set_digest == census.set_digest
    assert fresh.account() == census.account()
    assert len(there) == census.keys


def test_one_change_is_kept_with_one_bucket() -> None:
    """A store that keeps the account writes one sum and the seal."""
    census = census_of(key(1), key(2))
    kept = census.account()

    step = census.step(key(1), key(1, 2))
    census.make(step)

    values = list(kept.values)
    values[step.change.bucket] = step.change.value
    assert StoreAccount(tuple(values), step.change.seal) == census.account()
    assert bucket_of(key(1).key_id) == step.change.bucket


class TestKept:
    @pytest.fixture
    def census(self) -> KeySetDigest:
        """Give a census of three keys."""
        return census_of(*map(key, range(3)))

    def test_a_changed_sum(self, census: KeySetDigest) -> None:
        """No sum can be changed."""
        account = census.account()
        bucket = bucket_of(key(0).key_id)
        values = list(account.values)
        values[bucket] = bytes(32)

        assert census.read(replace(account, values=tuple(values))) is None

    def test_a_shift_between_two_sums(self, census: KeySetDigest) -> None:
        """Nor can something be moved from one to another, which keeps the total."""
        account = census.account()
        values = [int.from_bytes(value, "big") for value in account.values]
        values[0] = (values[0] + 1) % 2**256
        values[1] = (values[1] - 1) % 2**256
        moved = tuple(value.to_bytes(32, "big") for value in values)

        assert census.read(replace(account, values=moved)) is None

    def test_a_sum_of_another_length(self, census: KeySetDigest) -> None:
        """Nor has the same sum a second spelling."""
        account = census.account()
        values = (b"\0" + account.values[0], *account.values[1:])

        assert census.read(replace(account, values=values)) is None

    @pytest.mark.parametrize("position", range(0, 103, 7))
    def test_a_changed_seal(self, census: KeySetDigest, position: int) -> None:
        """Nor the seal."""
        account = census.account()
        seal = bytearray(account.seal)
        seal[position] ^= 1

        assert census.read(replace(account, seal=bytes(seal))) is None

    def test_what_is_no_account(self, census: KeySetDigest) -> None:
        """Whatever else lies there is not believed."""
        account = census.account()

        assert census.read(StoreAccount((), account.seal)) is None
        assert census.read(replace(account, values=(b"",) * BUCKETS)) is None
        assert census.read(replace(account, seal=b"")) is None


class TestBuckets:
    def test_the_keys_that_were_counted(self) -> None:
        """A bucket agrees with its keys, and with no others."""
        census, one = census_of(key(1), key(2)), key(1)
        bucket = bucket_of(one.key_id)

        assert census.agrees(bucket, [one])
        assert not census.agrees(bucket, [])
        assert not census.agrees(bucket, [key(1, 2)])
        assert not census.agrees(bucket, [replace(one, digest="0" * 64)])

    def test_a_pinned_key_is_left_out(self) -> None:
        """Of a key that is known to be stored otherwise nothing is compared."""
        census, one = census_of(key(1), key(2)), key(1)
        bucket = bucket_of(one.key_id)

        census.pin(one.key_id, one)
        assert census.agrees(bucket, [key(1, 9)])
        assert census.agrees(bucket, [])
        census.unpin(one.key_id)
        assert not census.agrees(bucket, [])

    def test_what_no_index_of_ours_says(self) -> None:
        """Numbers and texts that only others write are counted as something else."""
        census, one = census_of(key(1)), key(1)
        bucket = bucket_of(one.key_id)

        for generation, digest in (
            (-1, one.digest),
            (2**70, one.digest),
            (1, "é" * 64),
        ):
            strange = KnownKey(one.key_id, generation, digest)
            assert not census.agrees(bucket, [strange])
