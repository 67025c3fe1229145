# SPDX-License-Identifier: MIT
"""Whoever has an answer finds its record by `bind`, with the page alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core import operations as ops
from hsm_core.errors import DecryptionError, SignatureMismatchError
from hsm_core.session import Session
from hsm_core.settings import AuditStoreKind, Settings
from hsm_core.testing import caller
from tests.core.second_reader import Entry, read_database, read_files
from tests.core.second_reader.keys import bind_of, derived
from tests.self_tests import open_tested

KEY = b"\x02" * 32
TEXT = b"m" * 100


class Place:
    """An HSM that is used, and whose log is then read."""

    def __init__(self, folder: Path, kind: AuditStoreKind) -> None:
        self.settings = Settings(
            key_dir=folder / "keys",
            audit_store=kind,
            audit_log=folder / "audit.log",
            audit_sqlite_path=folder / "audit.sqlite",
        )
        self.gateway = open_tested(self.settings)
        self.session = Session(self.gateway.act_as(caller()))

    def bound(self, kind: str, what: bytes) -> list[bool]:
        """Return whether each record of a kind commits to this; close the HSM."""
        self.gateway.close()
        if self.settings.audit_store is AuditStoreKind.FILE:
            assert self.settings.audit_log is not None
            log = read_files(self.settings.audit_log, KEY)
        else:
            log = read_database(self.settings.audit_sqlite_path, KEY)
        key = derived(KEY, log.log_id, "FerroHSM audit bind 1")

        def is_bound(entry: Entry) -> bool:
            return entry.members.get("bind") == bind_of(key, entry.seq, what)

        return [is_bound(e) for e in log.entries if e.members["kind"] == kind]


@pytest.fixture(params=[AuditStoreKind.FILE, AuditStoreKind.SQLITE])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Give an HSM, with its log in files and in SQLite."""
    made = Place(tmp_path, request.param)
    yield made
    made.gateway.close()


def sealed(ciphertext: bytes) -> bytes:
    """Return what is bound of a ciphertext: header, nonce, tag and its length."""
    header, nonce, tag = ciphertext[:28], ciphertext[28:40], ciphertext[-16:]
    return header + nonce + tag + len(ciphertext).to_bytes(8, "big")


def hashed(*answers: bytes) -> bytes:
    """Return what is bound of a batch of signatures."""
    return b"".join(hashlib.sha256(answer).digest() for answer in answers)


@pytest.mark.parametrize("uses", [1, 3])
def test_a_signature(place: Place, uses: int) -> None:
    """Each is found among others, on a plan too."""
    key = place.session.create_key("p256").key_id
    made = [place.session.sign(key, TEXT).signature for _ in range(uses)]

    assert [False] * (uses - 1) + [True] == place.bound("Sign", made[-1])


def test_a_signature_that_is_checked(place: Place) -> None:
    """What was shown is bound, whether it was right or not."""
    key = place.session.create_key("ed25519").key_id
    signature = place.session.sign(key, TEXT).signature
    place.session.verify(key, TEXT, signature)
    with pytest.raises(SignatureMismatchError):
        place.session.verify(key, b"another", signature)

    assert place.bound("Verify", signature)[0]


def test_a_mac(place: Place) -> None:
    """Of both sides."""
    key = place.session.create_key("hmac-sha256").key_id
    made = place.session.mac(key, TEXT).mac
    place.session.verify_mac(key, TEXT, made)

    assert [True] == place.bound("VerifyMac", made)


@pytest.mark.parametrize("length", [0, 100, 100_000])
def test_a_ciphertext(place: Place, length: int) -> None:
    """By header, nonce, tag and length, for long texts too."""
    key = place.session.create_key("aes").key_id
    made = place.session.encrypt(key, b"m" * length)

    assert [True] == place.bound("Encrypt", sealed(made))


def test_a_ciphertext_that_is_decrypted(place: Place) -> None:
    """By the same."""
    key = place.session.create_key("aes").key_id
    made = place.session.encrypt(key, TEXT)
    place.session.decrypt(key, made)
    with pytest.raises(DecryptionError):
        place.session.decrypt(key, made[:-1] + bytes([made[-1] ^ 1]))

    assert [True, False] == place.bound("Decrypt", sealed(made))


def test_a_batch(place: Place) -> None:
    """By the hash of what each item has."""
    key = place.session.create_key("p256").key_id
    items = [ops.SignItem(message=TEXT) for _ in range(3)]
    made = place.session.sign_batch(key, items).items
    assert all(item.signature for item in made)

    bound = hashed(*(item.signature or b"" for item in made))
    assert [True] == place.bound("SignBatch", bound)


def test_a_batch_with_an_item_that_fails(place: Place) -> None:
    """By 32 zero bytes in its place."""
    key = place.session.create_key("aes").key_id
    made = [place.session.encrypt(key, TEXT) for _ in range(2)]
    wrong = made[1][:-1] + bytes([made[1][-1] ^ 1])
    items = [ops.DecryptItem(ciphertext=one) for one in (made[0], wrong)]
    place.session.decrypt_batch(key, items)

    bound = sealed(made[0]) + bytes(32)
    assert [True] == place.bound("DecryptBatch", bound)


@pytest.mark.parametrize("uses", [1, 2])
@pytest.mark.parametrize("length", [100, 40_000])
def test_a_batch_of_ciphertexts(place: Place, uses: int, length: int) -> None:
    """By what each item has, one behind the other; on a plan too."""
    key = place.session.create_key("aes").key_id
    items = [
        ops.EncryptItem(plaintext=b"m" * length),
        ops.EncryptItem(plaintext=b"", aad=b"case 7"),
    ]
    made = [place.session.encrypt_batch(key, items).items for _ in range(uses)]
    texts = [item.ciphertext or b"" for item in made[-1]]
    opened = place.session.decrypt(key, texts[0])

    assert b"m" * length == opened
    assert b"" == place.session.decrypt(key, texts[1], aad=b"case 7")
    assert place.bound("EncryptBatch", b"".join(map(sealed, texts)))[-1]


@pytest.mark.parametrize("uses", [1, 3])
def test_a_batch_that_is_decrypted(place: Place, uses: int) -> None:
    """By what each ciphertext has; on a plan too."""
    key = place.session.create_key("chacha20-poly1305").key_id
    texts = [(b"m" * 100, b""), (b"", b"case 7"), (b"n" * 40_000, b"case 8")]
    made = [place.session.encrypt(key, text, aad=aad) for text, aad in texts]
    items = [
        ops.DecryptItem(reference=f"{n}", ciphertext=one, aad=texts[n][1])
        for n, one in enumerate(made)
    ]
    opened = [place.session.decrypt_batch(key, items).items for _ in range(uses)]

    expected = [(f"{n}", 1, text, None) for n, (text, _) in enumerate(texts)]
    assert [expected] * uses == [
        [(item.reference, item.version, item.plaintext, item.error) for item in items]
        for items in opened
    ]
    bound = b"".join(map(sealed, made))
    assert [True] * uses == place.bound("DecryptBatch", bound)
