# SPDX-License-Identifier: MIT
"""Sign and Verify: contexts, mu, digests of composites, and what is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from hsm_core import errors, primitives
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
ML_DSA = [A.ML_DSA_44, A.ML_DSA_65, A.ML_DSA_87]
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
    @pytest.mark.parametrize("algorithm", NEW_SIGNERS)
    def test_limits(self, session: Session, algorithm: Algorithm) -> None:
        """255 bytes of context are signed, 256 are refused, both ways."""
        require_algorithm(session, algorithm)
        key = session.create_key(algorithm).key_id
        public = session.public_key(key).der

        made = session.sign(key, b"m", context=b"c" * 255)

        primitives.verify(algorithm, public, made.signature, b"m", context=b"c" * 255)
        with refused(errors.InvalidInputError, "context"):
            session.sign(key, b"m", context=b"c" * 256)
        with refused(errors.InvalidInputError, "context"):
            session.verify(key, b"m", made.signature, context=b"c" * 256)

    @pytest.mark.parametrize("algorithm", NEW_SIGNERS)
    def test_hedged(self, session: Session, algorithm: Algorithm) -> None:
        """Two signatures of one message differ, and both verify."""
        require_algorithm(session, algorithm)
        key = session.create_key(algorithm).key_id

        made = [session.sign(key, b"m").signature for _ in range(2)]

        assert made[0] != made[1]
        for signature in made:
            session.verify(key, b"m", signature)

    @pytest.mark.parametrize("algorithm", WITHOUT_CONTEXT)
    def test_none(self, session: Session, algorithm: Algorithm) -> None:
        """Algorithms without contexts refuse one by name."""
        key = session.create_key(algorithm).key_id

        with refused(errors.UnsupportedOperationError, "context"):
            session.sign(key, b"m", context=b"c")


class TestMu:
    @pytest.mark.parametrize("algorithm", ML_DSA)
    def test_mu_stands_for_message_and_context(
        self, session: Session, algorithm: Algorithm
    ) -> None:
        """A signature over mu is one over message and context, and so is the check."""
        key = session.create_key(algorithm).key_id
        public = session.public_key(key).der
        mu = primitives.external_mu(algorithm, public, b"message", b"context")

        made = session.sign(key, mu=mu).signature
        direct = session.sign(key, b"message", context=b"context").signature

        session.verify(key, b"message", made, context=b"context")
        session.verify(key, None, direct, mu=mu)
        with pytest.raises(errors.SignatureMismatchError):
            session.verify(key, b"message", made)

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
        """A composite signs a digest under its own pre-hash, and under no other."""
        key = session.create_key(algorithm).key_id
        hashed = ALGORITHMS[algorithm].hashes[0]
        name = hashed.value.replace("-", "").lower()
        digest = hashlib.new(name, b"message").digest()

        made = session.sign(key, digest=digest, context=b"c")

        assert (hashed, None, SignatureScheme.COMPOSITE_ML_DSA) == (
            made.hash,
            made.encoding,
            made.scheme,
        )
        session.verify(key, b"message", made.signature, context=b"c")
        with pytest.raises(errors.InputSizeError) as caught:
            session.sign(key, digest=digest[1:])
        size = hashed.digest_bytes
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

    @pytest.mark.parametrize("algorithm", NEW_SIGNERS)
    def test_signatures_of_other_lengths(
        self, session: Session, algorithm: Algorithm
    ) -> None:
        """A signature of another length is wrong, like any other wrong one."""
        require_algorithm(session, algorithm)
        key = session.create_key(algorithm).key_id
        good = session.sign(key, b"m").signature

        for wrong in (b"", good[:-1], good + b"\0", bytes(len(good)), good[1:]):
            with pytest.raises(errors.SignatureMismatchError):
                session.verify(key, b"m", wrong)

    def test_old_versions_verify(self, session: Session) -> None:
        """After a rotation, a composite's old signatures still verify."""
        key = session.create_key("MLDSA65-Ed25519-SHA512").key_id
        old = session.sign(key, b"m", context=b"c").signature
        session.rotate(key)

        assert 1 == session.verify(key, b"m", old, context=b"c").version
