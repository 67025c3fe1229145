# SPDX-License-Identifier: MIT
"""Tests of key documents: nothing of them is believed unless all of it is ours."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core._internal.keyring.documents import (
    KeyDocument,
    OperationRecord,
    RotationDocument,
    VersionDocument,
    check_document_size,
    decode_document,
    document_digest,
    encode_document,
    index_of,
    peek,
    read_index,
    remember,
)
from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core._internal.keyring.versions import check_room
from hsm_core._internal.lib import encoding
from hsm_core._internal.lib.encoding import mac_function
from hsm_core.errors import InputSizeError, KeyTamperedError
from hsm_core.model import KeyOrigin
from hsm_core.protocols import IndexEntry
from hsm_core.testing import FakeEntropy
from tests.core.key_support import LOG_ID, RING, document_of, key_id_of, operation_of

DOCUMENT = document_of(
    1, versions=2, name="pay", tags=("a", "b"), operations=(operation_of(1),)
)
STORED = encode_document(DOCUMENT, RING.document_mac)


def decode(stored: bytes) -> KeyDocument:
    """Decode as the document of key 1 in the store of the ring."""
    return decode_document(key_id_of(1), RING.store_id, stored, RING.document_mac)


def is_accepted(stored: bytes) -> bool:
    """Return whether a stored form is believed; reading it unbelieved must not fail."""
    assert isinstance(read_index(key_id_of(1), stored), IndexEntry)
    try:
        decode(stored)
    except KeyTamperedError:
        return False
    return True


def single_byte_changes(whole: bytes) -> Iterator[bytes]:
    """Return byte strings that differ from *whole* in one byte: each bit, and zero."""
    for position, byte in enumerate(whole):
        for value in {0, *(byte ^ 1 << bit for bit in range(8))}:
            yield whole[:position] + bytes([value]) + whole[position + 1 :]


class TestDecode:
    def test_round_trip(self) -> None:
        """
        What was written is read.
        """
        assert DOCUMENT == decode(STORED)

    def test_every_single_byte_change(self) -> None:
        """
        No byte of a stored document can become another one unnoticed.
        """
        accepted = [
            changed for changed in single_byte_changes(STORED) if is_accepted(changed)
        ]

        assert [] == accepted

    def test_another_key(self) -> None:
        """
        A document that was moved to another key's place is not believed.
        """
        with pytest.raises(KeyTamperedError) as caught:
            decode_document(key_id_of(2), RING.store_id, STORED, RING.document_mac)

        assert {"key_id": key_id_of(2)} == caught.value.facts

    def test_another_store(self) -> None:
        """
        A document of another store is not believed, even with the same secret.
        """
        with pytest.raises(KeyTamperedError):
            decode_document(key_id_of(1), "00" * 16, STORED, RING.document_mac)

    def test_another_ring(self) -> None:
        """
        A document under another ring's MAC is not believed.
        """
        other = KeyRing.create(FakeEntropy(9), log_id=LOG_ID)

        assert not is_accepted(encode_document(DOCUMENT, other.document_mac))
        assert not is_accepted(encode_document(DOCUMENT, mac_function(bytes(32))))

    def test_of_a_newer_format(self) -> None:
        """
        Who has gone back to an older release is told so, unless the MAC is wrong.
        """
        payload = msgspec.json.encode(
            msgspec.json.decode(STORED)["key"] | {"format": 2}
        )
        mac = RING.document_mac(payload)
        told = []
        for stored in (
            encoding.join(b"key", payload, mac),
            encoding.join(b"key", payload, bytes(32)),
        ):
            with pytest.raises(KeyTamperedError) as caught:
                decode(stored)
            told.append((str(caught.value), caught.value.facts.get("format")))

        what = f"The document of key {key_id_of(1)}"
        newer = (
            "has format 2, written by a newer release; this release supports up to 1"
        )
        assert [
            (f"{what} {newer}. Use the newer release.", 2),
            (f"{what} was tampered with.", None),
        ] == told

    @given(st.binary(max_size=300))
    def test_anything(self, stored: bytes) -> None:
        """
        Any bytes at all are refused in the documented way.
        """
        assert not is_accepted(stored)


def test_repr_gives_nothing_away() -> None:
    """A document in a log line shows its type only."""
    shown = repr([DOCUMENT, DOCUMENT.versions[0], DOCUMENT.operations[0]])

    assert "[<KeyDocument>, <VersionDocument>, <OperationRecord>]" == shown


class TestIndex:
    def test_of_a_readable_document(self) -> None:
        """
        The index reads the facts it needs from the stored form.
        """
        expected = IndexEntry(
            key_id=key_id_of(1),
            created_at=1001,
            name="pay",
            algorithm="AES-256-GCM",
            state="active",
            tags=frozenset({"a", "b"}),
            owner="alice",
            usages=frozenset({"encrypt", "decrypt"}),
            generation=1,
            operations=(operation_of(1),),
            digest=document_digest(STORED),
        )

        assert (
            expected
            == read_index(key_id_of(1), STORED)
            == index_of(DOCUMENT, document_digest(STORED))
        )

    @pytest.mark.parametrize("current", [-1, 0, 3])
    def test_current_version_that_is_not_there(self, current: int) -> None:
        """
        A document whose current version does not exist can't be read.
        """
        wrong = msgspec.structs.replace(DOCUMENT, current=current)

        assert peek(key_id_of(1), encode_document(wrong, RING.document_mac)) is None

    @pytest.mark.parametrize("stored", [b"", b"junk", STORED[:-1], b'{"key":{}}'])
    def test_of_an_unreadable_document(self, stored: bytes) -> None:
        """
        A key whose document can't be read still has an entry, at generation 0.
        """
        found = read_index(key_id_of(1), stored)

        assert (key_id_of(1), 0, "", 0) == (
            found.key_id,
            found.created_at,
            found.state,
            found.generation,
        )

    def test_of_another_keys_document(self) -> None:
        """
        A document that names another key says nothing about this one.
        """
        assert "" == read_index(key_id_of(2), STORED).name
        assert peek(key_id_of(2), STORED) is None


BARE = {
    "format": 1,
    "kek_id": "00" * 8,
    "store_id": RING.store_id,
    "key_id": key_id_of(1),
    "algorithm": "Ed25519",
    "usages": ["sign"],
    "created_at": 5,
    "updated_at": 5,
    "generation": 1,
    "current": 1,
    "versions": [
        {
            "version": 1,
            "material_id": "m",
            "state": "active",
            "created_at": 5,
            "state_changed_at": 7,
        }
    ],
}
"""What every document says; the rest is written only where there is something."""


class TestWhatIsNotWritten:
    def test_is_not_there(self) -> None:
        """
        What a document does not say is nothing, nought or no, and stays unwritten.
        """
        payload = msgspec.json.encode(BARE | {"rotation": {}})
        stored = encoding.join(b"key", payload, RING.document_mac(payload))
        document = decode(stored)
        (version,) = document.versions

        optional = [
            getattr(part, field.name)
            for part in (document, version, RotationDocument())
            for field in msgspec.structs.fields(type(part))
            if not field.required
        ]

        written = {document.origin, document.rotation}
        assert (KeyOrigin.GENERATED, RotationDocument()) == (
            document.origin,
            document.rotation,
        )
        assert [] == [value for value in optional if value and value not in written]
        assert stored == encode_document(document, RING.document_mac)

    def test_active_since(self) -> None:
        """
        A version that never was staged is active from the moment it was made.
        """
        version = msgspec.convert(BARE["versions"][0], VersionDocument)  # type: ignore[index]
        staged = msgspec.structs.replace(version, activated_at=6)

        assert (5, 6) == (version.active_since, staged.active_since)


def test_the_longest() -> None:
    """
    What is written can be read again: a stored form has 16 MiB at most.
    """
    check_document_size(bytes(16 * 1024 * 1024))
    with pytest.raises(InputSizeError) as caught:
        check_document_size(bytes(16 * 1024 * 1024 + 1))

    assert ("document", 16777217, 16777216) == tuple(
        caught.value.facts[name] for name in ("field", "actual", "maximum")
    )


def test_the_most_versions() -> None:
    """A key with 4,096 versions can't be rotated."""
    check_room(document_of(1, versions=4095))
    with pytest.raises(InputSizeError) as caught:
        check_room(document_of(1, versions=4096))

    assert ("versions", 4097, 4096) == tuple(
        caught.value.facts[name] for name in ("field", "actual", "maximum")
    )


HOUR = 3600 * 1_000_000


def records(count: int, *, every: int) -> tuple[OperationRecord, ...]:
    """Return operations, one every so many microseconds, the last at 1000 hours."""
    return tuple(
        OperationRecord(
            id=operation_of(n),
            digest="",
            kind="RotateKey",
            generation=n,
            version=1,
            at=1000 * HOUR - (count - n) * every,
        )
        for n in range(1, count + 1)
    )


class TestRemember:
    @pytest.mark.parametrize(
        ("count", "every", "kept"),
        [
            (0, HOUR, 0),
            (10, 100 * HOUR, 9),
            (32, 100 * HOUR, 31),
            (33, 100 * HOUR, 31),
            (90, 100 * HOUR, 31),
            (90, HOUR // 2, 49),
            (90, 24 * HOUR // 40, 41),
            (90, 24 * HOUR // 40 + 1, 40),
            (400, HOUR // 1000, 254),
        ],
    )
    def test_bounds(self, count: int, every: int, kept: int) -> None:
        """
        The last 32 stay, those of one day, and the first, but never more than 256.
        """
        before = records(count, every=every)
        made = before[:1]
        new = msgspec.structs.replace(records(1, every=0)[0], id="new", at=1000 * HOUR)

        after = remember(before, new)

        assert (*made, *before[count - kept :], new) == after
