# SPDX-License-Identifier: MIT
"""GenerateDataKey and Rewrap."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.algorithms import Algorithm, HashAlgorithm, KeyUsage
from hsm_core.session import Session
from hsm_core.testing import memory_hsm
from tests.core.hsm_support import facts_of, session_of

AEADS = ["aes", "aes128gcm", "chacha20"]
KEMS = ["ML-KEM-768", "MLKEM768-X25519-SHA3-256"]
CRYPT = (KeyUsage.ENCRYPT, KeyUsage.DECRYPT)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    """Give one HSM for all tests of this module."""
    with memory_hsm() as gateway:
        yield session_of(gateway)


@pytest.fixture(scope="module")
def key_of(session: Session) -> Callable[[str], str]:
    """Give a function that makes a key for encryption."""
    return lambda algorithm: session.create_key(algorithm, usages=CRYPT).key_id


def opened(session: Session, key: str, ciphertext: bytes, aad: bytes = b"") -> bytes:
    """Decrypt by the operation that the key has."""
    algorithm = session.describe(key).algorithm
    is_kem = algorithm is not None and "KEM" in algorithm
    return (session.open if is_kem else session.decrypt)(key, ciphertext, aad)


class TestDataKeys:
    @pytest.mark.parametrize("algorithm", [*AEADS, *KEMS, "rsa2048"])
    @pytest.mark.parametrize("length", [16, 64])
    def test_plain_and_wrapped(
        self,
        session: Session,
        key_of: Callable[[str], str],
        algorithm: str,
        length: int,
    ) -> None:
        """The wrapped form holds the key that was shown, bound to its aad."""
        key = key_of(algorithm)

        made = session.data_key(key, length=length, aad=b"aad")

        assert (length, 1) == (len(made.plaintext), made.version)
        assert made.plaintext == opened(session, key, made.ciphertext, b"aad")
        with pytest.raises(errors.DecryptionError):
            opened(session, key, made.ciphertext)

    def test_wrapped_only(self, session: Session, key_of: Callable[[str], str]) -> None:
        """If only the wrapped form is asked for, the key is not shown."""
        key = key_of("aes")

        made = session.data_key(key, wrapped_only=True)

        assert b"" == made.plaintext
        assert 32 == len(session.decrypt(key, made.ciphertext))

    def test_they_differ(self, session: Session, key_of: Callable[[str], str]) -> None:
        """No two data keys are the same."""
        key = key_of("aes")

        assert 20 == len({session.data_key(key).plaintext for _ in range(20)})

    @pytest.mark.parametrize("length", [0, 15, 65])
    def test_other_lengths(
        self, session: Session, key_of: Callable[[str], str], length: int
    ) -> None:
        """A data key has 16 to 64 bytes."""
        with pytest.raises(errors.InvalidInputError) as caught:
            session.data_key(key_of("aes"), length=length)

        assert "length" == facts_of(caught)[0]

    def test_other_keys(self, session: Session) -> None:
        """A key that may not encrypt makes no data keys."""
        for algorithm in ("p256", "hs256", "aes-kw"):
            key = session.create_key(algorithm).key_id
            with pytest.raises(errors.KeyUsageError):
                session.data_key(key)

    def test_hidden_and_recorded(
        self, session: Session, key_of: Callable[[str], str]
    ) -> None:
        """The key is neither printed nor recorded."""
        key = key_of("aes")

        made = session.data_key(key, length=16)

        event = session.audit_events(key_id=key, limit=1)[0].event
        assert ("GenerateDataKey", {"length": 16}) == (event.kind, event.parameters)
        assert repr(made.plaintext) not in repr(made)


class TestRewrap:
    @pytest.mark.parametrize("algorithm", [*AEADS, *KEMS])
    def test_to_the_current_version(
        self, session: Session, key_of: Callable[[str], str], algorithm: str
    ) -> None:
        """An old ciphertext becomes one of the current version, with the same aad."""
        key = key_of(algorithm)
        old = session.data_key(key, aad=b"aad")
        session.rotate(key)
        session.rotate(key)

        result = session._hsm.execute(  # noqa: SLF001 (the seam itself)
            ops.Rewrap(key_id=key, ciphertext=old.ciphertext, aad=b"aad")
        )
        session.revoke(key, version=1)

        assert 3 == result.version
        assert old.plaintext == opened(session, key, result.ciphertext, b"aad")
        with pytest.raises(errors.KeyStateError):
            opened(session, key, old.ciphertext, b"aad")

    def test_rsa_keeps_its_hashes(
        self, session: Session, key_of: Callable[[str], str]
    ) -> None:
        """An RSA envelope is made anew with the hashes that it names."""
        key = key_of("rsa2048")
        old = session._hsm.execute(  # noqa: SLF001 (the seam itself)
            ops.Encrypt(
                key_id=key,
                plaintext=b"m",
                hash=HashAlgorithm.SHA_384,
                mgf_hash=HashAlgorithm.SHA_512,
            )
        ).ciphertext

        new = session.rewrap(key, old)

        assert old[:28] == new[:28]
        assert old != new
        assert b"m" == session.decrypt(key, new)

    def test_one_of_the_current_version(
        self, session: Session, key_of: Callable[[str], str]
    ) -> None:
        """A ciphertext of the newest version is made anew as well."""
        key = key_of("chacha20")
        old = session.encrypt(key, b"m")

        new = session.rewrap(key, old)

        assert old[28:] != new[28:]
        assert b"m" == session.decrypt(key, new)

    @pytest.mark.parametrize("usage", CRYPT)
    def test_it_needs_both_usages(self, session: Session, usage: KeyUsage) -> None:
        """A key that only encrypts, or only decrypts, rewraps nothing."""
        key = session.create_key("aes", usages=[usage]).key_id

        with pytest.raises(errors.KeyUsageError) as caught:
            session.rewrap(key, bytes(64))

        assert {usage.value, caught.value.facts["usage"]} == {"encrypt", "decrypt"}

    @pytest.mark.parametrize("algorithm", ["aes", "ML-KEM-768"])
    def test_every_failure_is_the_same(
        self, session: Session, key_of: Callable[[str], str], algorithm: str
    ) -> None:
        """Whatever is wrong with a ciphertext, it is not said what."""
        key, other = key_of(algorithm), key_of(algorithm)
        good, foreign = (session.data_key(k).ciphertext for k in (key, other))

        for wrong in (b"", good[:-1], foreign, good[:-1] + bytes([good[-1] ^ 1])):
            with pytest.raises(errors.DecryptionError):
                session.rewrap(key, wrong)

    def test_a_revoked_version(
        self, session: Session, key_of: Callable[[str], str]
    ) -> None:
        """What a compromised version made is not carried on."""
        key = key_of("aes")
        old = session.encrypt(key, b"m")
        session.rotate(key)
        session.revoke(key, version=1)

        with pytest.raises(errors.KeyStateError):
            session.rewrap(key, old)

    def test_other_keys(self, session: Session) -> None:
        """A key that encrypts nothing rewraps nothing."""
        key = session.create_key(Algorithm.ML_DSA_44).key_id

        with pytest.raises(errors.KeyUsageError):
            session.rewrap(key, bytes(64))
