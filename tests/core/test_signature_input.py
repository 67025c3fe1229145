# SPDX-License-Identifier: MIT
"""Sign and Verify: contexts, mu, digests of composites, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hsm_core import errors
from hsm_core.algorithms import (
    ALGORITHMS,
    Algorithm,
    Family,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
)
from hsm_core.session import Session
from hsm_core.testing import memory_hsm
from tests.core.hsm_support import (
    NEW_SIGNERS,
    facts_of,
    refused,
    require_algorithm,
    session_of,
)

A = Algorithm
COMPOSITES = [
    a for a, row in ALGORITHMS.items() if row.family is Family.COMPOSITE_SIGNATURE
]
WITHOUT_CONTEXT = [A.RSA_2048, A.EC_P256, A.ED25519]


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    """Give one HSM for all tests of this module."""
    with memory_hsm() as gateway:
        yield session_of(gateway)


class TestContexts:
    @pytest.mark.parametrize("algorithm", WITHOUT_CONTEXT)
    def test_none(self, session: Session, algorithm: Algorithm) -> None:
        """Algorithms without contexts refuse one by name."""
        key = session.create_key(algorithm).key_id

        with refused(errors.UnsupportedOperationError, "context"):
            session.sign(key, b"m", context=b"c")


class TestMu:
    @pytest.mark.parametrize("size", [0, 63, 65])
    def test_other_lengths(self, session: Session, size: int) -> None:
        """Mu has 64 bytes."""
        key = session.create_key(A.ML_DSA_44).key_id

        with refused(errors.InvalidInputError, "mu"):
            session.sign(key, mu=bytes(size))

    @pytest.mark.parametrize("algorithm", [A.ED25519, A.EC_P256, *COMPOSITES])
    def test_others_have_none(self, session: Session, algorithm: Algorithm) -> None:
        """Only ML-DSA signs mu."""
        key = session.create_key(algorithm).key_id

        with refused(errors.UnsupportedOperationError, "mu"):
            session.sign(key, mu=bytes(64))

    def test_not_with_others(self, session: Session) -> None:
        """Mu holds message and context, so neither is given with it."""
        key = session.create_key(A.ML_DSA_44).key_id

        with refused(errors.UnsupportedOperationError, "context"):
            session.sign(key, mu=bytes(64), context=b"c")
        with refused(errors.InvalidInputError, "message"):
            session.sign(key, b"m", mu=bytes(64))


class TestDigests:
    @pytest.mark.parametrize("algorithm", COMPOSITES)
    def test_of_composites(self, session: Session, algorithm: Algorithm) -> None:
        """A composite signs a digest of its own pre-hash, and of no other."""
        key = session.create_key(algorithm).key_id
        size = ALGORITHMS[algorithm].hashes[0].digest_bytes

        with pytest.raises(errors.InputSizeError) as caught:
            session.sign(key, digest=bytes(size - 1))
        assert ("digest", size, size) == facts_of(caught)
        with refused(errors.UnsupportedOperationError, "hash"):
            session.sign(key, b"m", hash=HashAlgorithm.SHA_384)

    @pytest.mark.parametrize("algorithm", [A.ML_DSA_44, A.SLH_DSA_SHA2_128F])
    def test_not_of_others(self, session: Session, algorithm: Algorithm) -> None:
        """ML-DSA and SLH-DSA sign whole messages, or mu."""
        require_algorithm(session, algorithm)
        key = session.create_key(algorithm).key_id

        with refused(errors.UnsupportedOperationError, "digest"):
            session.sign(key, digest=bytes(32))

    def test_all_three(self, session: Session) -> None:
        """Exactly one of message, digest and mu is given."""
        key = session.create_key(A.EC_P256).key_id

        for message, digest in ((None, None), (b"m", bytes(32))):
            with pytest.raises(errors.InvalidInputError, match="exactly one") as caught:
                session.verify(key, message, b"", digest=digest)
            assert "message" == facts_of(caught)[0]


class TestOtherParameters:
    @pytest.mark.parametrize("algorithm", NEW_SIGNERS)
    def test_schemes_and_encodings(
        self, session: Session, algorithm: Algorithm
    ) -> None:
        """Each of these has one scheme and one encoding."""
        require_algorithm(session, algorithm)
        key, row = session.create_key(algorithm).key_id, ALGORITHMS[algorithm]

        made = session.sign(key, b"m", scheme=row.schemes[0])

        assert row.schemes[0] is made.scheme
        assert len(made.signature) <= row.signature_bytes
        with refused(errors.UnsupportedOperationError, "scheme"):
            session.sign(key, b"m", scheme=SignatureScheme.ECDSA)
        with refused(errors.UnsupportedOperationError, "encoding"):
            session.sign(key, b"m", encoding=SignatureEncoding.P1363)
