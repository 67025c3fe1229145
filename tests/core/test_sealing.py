# SPDX-License-Identifier: MIT
"""Tests of root, key ring and sealed blobs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hsm_core._internal.keyring.key_ring import BlobContext, KeyRing, RootKey
from hsm_core.errors import (
    ConfigurationError,
    EntropyUnavailableError,
    HSMError,
    KeyRingTamperedError,
    KeyTamperedError,
    WrongMasterKeyError,
)
from hsm_core.protocols import MasterKeySource
from hsm_core.testing import FakeEntropy
from tests.core.key_support import LOG_ID, RING, ROOT

CONTEXT = BlobContext(
    key_id="11111111-2222-4333-8444-555555555555",
    version=1,
    material_id="aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee",
    algorithm="AES-256-GCM",
    usages=("encrypt", "decrypt"),
)
MATERIAL = b"material of a key, thirty-two b."
BLOB = RING.seal_material(MATERIAL, context=CONTEXT, entropy=FakeEntropy(3))
SEALED_RING = RING.seal(ROOT)


def outcomes(
    opens: Callable[[bytes], object], sealed: Iterable[bytes]
) -> set[type[HSMError] | None]:
    """Return the classes of the errors that opening each raises, or None."""

    def outcome(one: bytes) -> type[HSMError] | None:
        try:
            opens(one)
        except HSMError as error:
            return type(error)
        return None

    return set(map(outcome, sealed))


def flips(whole: bytes, start: int = 0) -> Iterator[bytes]:
    """Return every byte string that differs from *whole* in one bit, behind a start."""
    for bit in range(8 * (len(whole) - start)):
        yield (int.from_bytes(whole, "big") ^ 1 << bit).to_bytes(len(whole), "big")


SEALED: dict[str, tuple[bytes, Callable[[bytes], object], type[HSMError]]] = {
    "root": (
        ROOT.seal(b"plaintext", b"context"),
        lambda sealed: ROOT.open(sealed, b"context"),
        WrongMasterKeyError,
    ),
    "ring": (
        SEALED_RING,
        lambda sealed: KeyRing.open(ROOT, sealed),
        KeyRingTamperedError,
    ),
    "ring of another root": (
        SEALED_RING,
        lambda sealed: KeyRing.open(RootKey(bytes(32)), sealed),
        KeyRingTamperedError,
    ),
    "blob": (
        BLOB,
        lambda sealed: RING.open_material(sealed, context=CONTEXT),
        KeyTamperedError,
    ),
}


@pytest.mark.parametrize("form", SEALED)
def test_every_change(form: str) -> None:
    """
    No bit of a sealed form can be another one; nor can it be shorter, or longer.
    """
    sealed, opens, error = SEALED[form]
    shorter = (sealed[:length] for length in range(len(sealed)))

    assert {error} == outcomes(opens, [*flips(sealed), *shorter, sealed + b"\0"])


class TestRootKey:
    @given(st.binary(max_size=200), st.binary(max_size=40))
    def test_round_trip(self, plaintext: bytes, context: bytes) -> None:
        """
        What was sealed is opened again, 65 bytes shorter.
        """
        sealed = ROOT.seal(plaintext, context)

        assert plaintext == ROOT.open(sealed, context)
        assert len(plaintext) + 65 == len(sealed)

    def test_never_twice_the_same(self) -> None:
        """
        Sealing the same thing again gives other bytes.
        """
        assert 50 == len({ROOT.seal(b"same", b"context") for _ in range(50)})

    @pytest.mark.parametrize("context", [b"", b"contexu", b"context\0"])
    def test_another_context(self, context: bytes) -> None:
        """
        A value sealed for one context does not open for another.
        """
        with pytest.raises(WrongMasterKeyError):
            ROOT.open(ROOT.seal(b"plaintext", b"context"), context)

    def test_another_root(self) -> None:
        """
        A value sealed by one root does not open with another.
        """
        with pytest.raises(WrongMasterKeyError):
            RootKey(bytes(32)).open(ROOT.seal(b"plaintext", b""), b"")

    @pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
    def test_length(self, length: int) -> None:
        """
        A root has 32 bytes; the refusal names the length and not the bytes.
        """
        with pytest.raises(ConfigurationError, match=f"32 bytes, got {length}"):
            RootKey(b"x" * length)

    def test_repr(self) -> None:
        """
        The representation shows no byte of the key.
        """
        assert "<RootKey>" == repr(RootKey(b"k" * 32))


class TestKeyRing:
    def test_round_trip(self) -> None:
        """
        A ring that was sealed and opened seals, opens and derives as before.
        """
        opened = KeyRing.open(ROOT, SEALED_RING)

        assert RING.store_id == opened.store_id
        assert LOG_ID == opened.log_id
        assert RING.kek_id == opened.kek_id
        assert MATERIAL == opened.open_material(BLOB, context=CONTEXT)
        assert RING.document_mac(b"x") == opened.document_mac(b"x")

    def test_create(self) -> None:
        """
        Each ring has random ids, in their documented form.
        """
        one, other = (KeyRing.create(FakeEntropy(n), log_id=LOG_ID) for n in (7, 8))

        assert re.fullmatch(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", one.store_id)
        assert re.fullmatch(r"[0-9a-f]{16}", one.kek_id)
        assert one.store_id != other.store_id
        assert one.kek_id != other.kek_id

    def test_wrong_root(self) -> None:
        """
        A whole ring under another root is told from a damaged one.
        """
        with pytest.raises(WrongMasterKeyError):
            KeyRing.open(RootKey(bytes(32)), SEALED_RING)

    def open_forged(self, body: bytes) -> KeyRing:
        """Open a ring whose checksum was made right by the forger."""
        return KeyRing.open(ROOT, body + hashlib.sha256(body).digest())

    def ring_of(self, edit: dict[str, object]) -> KeyRing:
        """Open a ring whose contents were edited by somebody who has the root."""
        contents = msgspec.msgpack.decode(ROOT.open(SEALED_RING[89:-32], RING_CONTEXT))
        packed = msgspec.msgpack.encode(contents | edit, order="deterministic")
        return self.open_forged(SEALED_RING[:89] + ROOT.seal(packed, RING_CONTEXT))

    def test_forged_checksum(self) -> None:
        """
        With the right root, a forger who makes the checksum right changes nothing.
        """
        body = SEALED_RING[:-32]

        assert {KeyRingTamperedError} == outcomes(self.open_forged, flips(body, 9))

    @pytest.mark.parametrize("length", [0, 1, 79, 81, 400, 2**32 - 1])
    def test_forged_length(self, length: int) -> None:
        """
        A forged length of the key check value is refused, however large.
        """
        body = SEALED_RING[:5] + length.to_bytes(4, "big") + SEALED_RING[9:-32]

        with pytest.raises((KeyRingTamperedError, WrongMasterKeyError)):
            self.open_forged(body)

    def test_parts_of_two_rings(self) -> None:
        """
        A key check value made for another text does not stand for the ring.
        """
        check = ROOT.seal(b"another text", b"hsm-core/key-check/1")
        start = SEALED_RING[:5] + len(check).to_bytes(4, "big")
        body = start + check + SEALED_RING[89:-32]

        with pytest.raises(KeyRingTamperedError):
            self.open_forged(body)

    @pytest.mark.parametrize(
        "edit",
        [
            {"format": 2},
            {"current_kek": "00" * 8},
            {"keks": {}},
            {"keks": {RING.kek_id: b"short"}},
            {"integrity_secret": b""},
            {"store_id": "../"},
            {"log_id": LOG_ID + "\n"},
            {"more": 1},
        ],
        ids=lambda edit: next(iter(edit)),
    )
    def test_contents_that_cannot_be(self, edit: dict[str, object]) -> None:
        """
        A ring is checked even though only the holder of the root can have sealed it.
        """
        with pytest.raises(KeyRingTamperedError):
            self.ring_of(edit)

    def test_same_contents_again(self) -> None:
        """
        The edits above fail because of the edit: without one, the ring opens.
        """
        assert RING.kek_id == self.ring_of({}).kek_id

    def test_shorter_than_its_head(self) -> None:
        """
        What ends before a ring could begin is damaged, and not another root's.
        """
        short = [SEALED_RING[:length] for length in range(9)]

        assert {KeyRingTamperedError} == outcomes(self.open_forged, short)

    @pytest.mark.parametrize("length", [9, len(SEALED_RING) - 32])
    def test_newer(self, length: int) -> None:
        """
        A ring of a higher format is a newer release's, whatever follows its head.
        """
        body = b"FHKR\x02" + SEALED_RING[5:length]

        with pytest.raises(ConfigurationError, match=r"^The key ring has format 2, "):
            self.open_forged(body)

    def test_lower_format(self) -> None:
        """
        A ring of format 0, which there never was, is damaged.
        """
        body = b"FHKR\0" + SEALED_RING[5:-32]

        with pytest.raises(KeyRingTamperedError):
            self.open_forged(body)

    def test_source_that_is_down(self) -> None:
        """
        A root that can't be asked now is no wrong root.
        """

        class Down(MasterKeySource):
            def seal(self, plaintext: bytes, context: bytes, /) -> bytes:
                raise EntropyUnavailableError

            def open(self, blob: bytes, context: bytes, /) -> bytes:
                raise EntropyUnavailableError

        with pytest.raises(EntropyUnavailableError):
            KeyRing.open(Down(), SEALED_RING)

    def test_repr(self) -> None:
        """
        The representation shows the store's id and no key.
        """
        assert f"<KeyRing of store {RING.store_id}>" == repr(RING)
        assert "<key ring contents>" == repr(RING._contents)  # noqa: SLF001


RING_CONTEXT = b"hsm-core/key-ring/1"


class TestBlob:
    @given(st.binary(max_size=300))
    def test_round_trip(self, material: bytes) -> None:
        """
        What was sealed is opened again, 73 bytes shorter.
        """
        blob = RING.seal_material(material, context=CONTEXT, entropy=FakeEntropy(5))

        assert material == RING.open_material(blob, context=CONTEXT)
        assert len(material) + 73 == len(blob)

    @pytest.mark.parametrize(
        "context",
        [
            replace(CONTEXT, key_id="11111111-2222-4333-8444-555555555556"),
            replace(CONTEXT, version=2),
            replace(CONTEXT, material_id="aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeef"),
            replace(CONTEXT, algorithm="HMAC-SHA-256"),
            replace(CONTEXT, usages=("encrypt",)),
            replace(CONTEXT, usages=("decrypt", "encrypt")),
            replace(CONTEXT, usages=("encryptdecrypt",)),
            replace(CONTEXT, usages=()),
            replace(CONTEXT, algorithm="", usages=("AES-256-GCM", *CONTEXT.usages)),
        ],
    )
    def test_another_context(self, context: BlobContext) -> None:
        """
        A blob moved to another key, version, algorithm or usage does not open.
        """
        with pytest.raises(KeyTamperedError) as caught:
            RING.open_material(BLOB, context=context)

        assert {
            "key_id": context.key_id,
            "version": context.version,
        } == caught.value.facts

    @pytest.mark.parametrize(
        ("start", "problem"),
        [
            (b"FHKB\x02", "has format 2, written by a newer release"),
            (b"FHKB\x01", "was tampered with."),
            (b"FHKB\x00", "was tampered with."),
            (b"FHKA\x02", "was tampered with."),
        ],
    )
    def test_problem(self, start: bytes, problem: str) -> None:
        """
        A refusal names key and version, and says if only a newer release knows more.
        """
        named = re.escape(f"Version 1 of key {CONTEXT.key_id} {problem}")

        with pytest.raises(KeyTamperedError, match=f"^{named}"):
            RING.open_material(start + BLOB[5:-1], context=CONTEXT)

    def test_head_of_a_newer_blob(self) -> None:
        """
        A head with nothing behind it is damaged, whatever format it claims.
        """
        with pytest.raises(KeyTamperedError, match=r"was tampered with\.$"):
            RING.open_material(b"FHKB\x02", context=CONTEXT)

    def test_another_store_with_the_same_root(self) -> None:
        """
        A blob from another installation does not open, even under the same root.
        """
        other = KeyRing.create(FakeEntropy(77), log_id=LOG_ID)
        other = KeyRing.open(ROOT, other.seal(ROOT))

        with pytest.raises(KeyTamperedError):
            other.open_material(BLOB, context=CONTEXT)

    def test_another_store_with_the_same_keks(self) -> None:
        """
        Not even a ring that shares every key but not the store's id opens a blob.
        """
        contents = msgspec.structs.replace(
            RING._contents,  # noqa: SLF001
            store_id="00" * 16,
        )

        with pytest.raises(KeyTamperedError):
            KeyRing(contents).open_material(BLOB, context=CONTEXT)

    def test_old_kek(self) -> None:
        """
        A ring with two KEKs opens what either sealed, and seals with the current one.
        """
        contents = RING._contents  # noqa: SLF001
        new = "ff" * 8
        ring = KeyRing(
            msgspec.structs.replace(
                contents, current_kek=new, keks={**contents.keks, new: bytes(32)}
            )
        )
        sealed = ring.seal_material(MATERIAL, context=CONTEXT, entropy=FakeEntropy(4))

        assert MATERIAL == ring.open_material(BLOB, context=CONTEXT)
        assert MATERIAL == ring.open_material(sealed, context=CONTEXT)
        assert (BLOB[5:13].hex(), sealed[5:13].hex()) == (RING.kek_id, new)

    def test_material_does_not_show(self) -> None:
        """
        Neither material nor any key stands in a blob or sealed ring.
        """
        contents = RING._contents  # noqa: SLF001
        secrets = [MATERIAL, contents.integrity_secret, *contents.keks.values()]

        assert not any(secret in BLOB + SEALED_RING for secret in secrets)


class TestDerived:
    def test_labels_separate(self) -> None:
        """
        One input gives unrelated values in each role.
        """
        data = b"same bytes"
        values = {
            RING.document_mac(data).hex()[:32],
            RING.payload_digest(data)[:32],
            RING.operation_id(data.decode(), ""),
            f"{RING.set_element(data.decode(), 0, ''):064x}"[:32],
            hashlib.sha256(data).hexdigest()[:32],
        }

        assert 5 == len(values)

    def test_operation_id(self) -> None:
        """
        An operation id has 32 hex digits and depends on who asks and with which key.
        """
        ids = [
            RING.operation_id("alice", "1"),
            RING.operation_id("alice", "1"),
            RING.operation_id("alice1", ""),
            RING.operation_id("bob", "1"),
        ]

        assert re.fullmatch("[0-9a-f]{32}", ids[0])
        assert 3 == len(set(ids))

    def test_undecodable_principal(self) -> None:
        """
        A name with a lone surrogate gives an id like any other.
        """
        assert RING.operation_id("\udc80", "") != RING.operation_id("\udc81", "")

    def test_payload_digest(self) -> None:
        """
        The digest of a payload is keyed: another store has another one.
        """
        other = KeyRing.create(FakeEntropy(9), log_id=LOG_ID)

        assert re.fullmatch("[0-9a-f]{64}", RING.payload_digest(b""))
        assert RING.payload_digest(b"") != other.payload_digest(b"")

    def test_set_element(self) -> None:
        """
        An element depends on key, generation and document.
        """
        elements = {
            RING.set_element(key_id, generation, digest)
            for key_id in ("a", "b")
            for generation in (1, 2)
            for digest in ("00", "01")
        }

        assert 8 == len(elements)
        assert all(0 <= element < 2**256 for element in elements)
