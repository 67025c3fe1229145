# SPDX-License-Identifier: MIT
"""GenerateDataKey and Rewrap."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.algorithms import HashAlgorithm, KeyUsage
from hsm_core.session import Session
from hsm_core.testing import memory_hsm
from tests.core.hsm_support import facts_of, session_of

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


class TestDataKeys:
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
