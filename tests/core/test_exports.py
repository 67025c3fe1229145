# SPDX-License-Identifier: MIT
"""Keys that leave, wrapped: ExportKey, GenerateDataKey, Rewrap; and their way back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hsm_core import errors, primitives
from hsm_core import operations as ops
from hsm_core._internal.handlers.transfer import is_as_strong
from hsm_core.algorithms import (
    ALGORITHMS,
    Algorithm,
    Cost,
    HashAlgorithm,
    KeyFormat,
    KeyUsage,
    WrapMechanism,
)
from hsm_core.model import KeyOrigin
from hsm_core.session import Session
from hsm_core.testing import memory_hsm
from tests.core.hsm_support import (
    SEEDED,
    STRONG,
    facts_of,
    require_algorithm,
    session_of,
    wrap_for,
    wrapping_keys,
)

A, M = Algorithm, WrapMechanism
TRAVELLERS = [
    algorithm
    for algorithm, row in ALGORITHMS.items()
    if row.generate_cost is Cost.QUICK or algorithm is A.SLH_DSA_SHA2_128F
]
"""Every algorithm but those whose keys take long to make; RSA is tested by itself."""


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    """Give one HSM for all tests of this module."""
    with memory_hsm() as gateway:
        yield session_of(gateway)


@pytest.fixture(scope="module")
def wrapping(session: Session) -> dict[Algorithm, str]:
    """Give wrapping keys by algorithm."""
    return wrapping_keys(session)


class TestBothWays:
    @pytest.mark.parametrize("algorithm", TRAVELLERS)
    @pytest.mark.parametrize("by", STRONG)
    def test_every_algorithm(
        self,
        session: Session,
        wrapping: dict[Algorithm, str],
        algorithm: Algorithm,
        by: Algorithm,
    ) -> None:
        """A key of any algorithm leaves in every form it has, and comes back."""
        require_algorithm(session, algorithm)
        row = ALGORITHMS[algorithm]
        key = session.create_key(algorithm, exportable=True).key_id
        forms = [KeyFormat.PKCS8 if row.is_asymmetric else KeyFormat.RAW]
        forms += [KeyFormat.SEED] if algorithm in SEEDED else []

        for form in forms:
            out = session.export_key(key, wrapping[by], format=form)
            back = session.import_key(
                algorithm, wrapping[by], out.wrapped, format=form, exportable=True
            )
            again = session.export_key(back.key_id, wrapping[A.AES_256_KW], format=form)

            assert (form, algorithm, wrapping[by]) == (
                out.format,
                out.algorithm,
                out.wrapping_key_id,
            )
            assert (KeyOrigin.IMPORTED, True, row.draft) == (
                back.origin,
                back.exportable,
                back.draft,
            )
            mine = session.export_key(key, wrapping[A.AES_256_KW], format=form)
            assert mine.wrapped == again.wrapped

    def test_rsa(self, session: Session, wrapping: dict[Algorithm, str]) -> None:
        """An RSA key is exported, imported, and signs as before."""
        key = session.create_key("rsa2048", exportable=True).key_id

        out = session.export_key(key, wrapping[A.RSA_3072])
        back = session.import_key("rsa2048", wrapping[A.RSA_3072], out.wrapped).key_id

        assert M.RSA_OAEP_AES_KWP is out.mechanism
        session.verify(key, b"m", session.sign(back, b"m").signature)

    @pytest.mark.parametrize("algorithm", [A.AES_256_GCM, A.HMAC_SHA_512, A.EC_P384])
    def test_by_rsa(
        self, session: Session, wrapping: dict[Algorithm, str], algorithm: Algorithm
    ) -> None:
        """RSA-3072 carries keys that are stronger than it, as other systems expect."""
        key = session.create_key(algorithm, exportable=True).key_id
        by = wrapping[A.RSA_3072]

        out = session.export_key(key, by)
        back = session.import_key(algorithm, by, out.wrapped, exportable=True).key_id

        forms = [session.export_key(k, wrapping[A.AES_256_KW]) for k in (key, back)]
        assert forms[0].wrapped == forms[1].wrapped

    @pytest.mark.parametrize("hash", HashAlgorithm)
    def test_oaep_hashes(
        self,
        session: Session,
        wrapping: dict[Algorithm, str],
        hash: HashAlgorithm,
    ) -> None:
        """The hashes of RSA-OAEP can be chosen, and must be told again."""
        key = session.create_key("p256", exportable=True).key_id
        by = wrapping[A.RSA_3072]

        out = session.export_key(key, by, hash=hash, mgf_hash=HashAlgorithm.SHA_384)

        back = session.import_key(
            "p256", by, out.wrapped, hash=hash, mgf_hash=HashAlgorithm.SHA_384
        )
        assert session.public_key(key).der == session.public_key(back.key_id).der
        with pytest.raises(errors.DecryptionError):
            session.import_key("p256", by, out.wrapped, hash=hash)

    @pytest.mark.parametrize("form", [KeyFormat.PKCS8, KeyFormat.SEED])
    def test_what_leaves_opens_outside(
        self, session: Session, wrapping: dict[Algorithm, str], form: KeyFormat
    ) -> None:
        """The holder of the wrapping key gets the exported key, bit by bit."""
        kw = bytes(range(32))
        sent = wrap_for(session, wrapping[A.ML_KEM_1024], kw)
        by = session.import_key("aes-kw", wrapping[A.ML_KEM_1024], sent).key_id
        key = session.create_key("ML-DSA-65", exportable=True).key_id

        out = session.export_key(key, by, format=form)

        material = primitives.key_unwrap(A.AES_256_KW, kw, out.wrapped)
        if form is KeyFormat.SEED:
            pair = primitives.private_key_from_seed(A.ML_DSA_65, material)
            material = pair.material
        public = primitives.public_key(A.ML_DSA_65, material)
        assert session.public_key(key).der == public

    def test_retired_versions(self, session: Session) -> None:
        """An older version of either key still serves, if it is named."""
        by = session.create_key("aes-kw").key_id
        key = session.create_key("hs256", exportable=True).key_id
        mac = session.mac(key, b"m").mac
        session.rotate(key)

        out = session.export_key(key, by, version=1)
        session.rotate(by)
        back = session.import_key("hs256", by, out.wrapped, wrapping_version=1)

        assert (1, 1) == (out.version, out.wrapping_version)
        assert mac == session.mac(back.key_id, b"m").mac
        assert 2 == session.export_key(key, by).wrapping_version
        with pytest.raises(errors.DecryptionError):
            session.import_key("hs256", by, out.wrapped)
        with pytest.raises(errors.KeyNotFoundError) as caught:
            session.import_key("hs256", by, out.wrapped, wrapping_version=3)
        assert "wrapping_version" == caught.value.facts["field"]

    def test_by_aes_kw_without_padding(
        self, session: Session, wrapping: dict[Algorithm, str]
    ) -> None:
        """AES-KW wraps what has whole blocks, and says what to take otherwise."""
        by = wrapping[A.AES_256_KW]
        whole = session.create_key("aes", exportable=True).key_id
        odd = session.create_key("p256", exportable=True).key_id

        out = session.export_key(whole, by, mechanism=M.AES_KW)
        session.import_key("aes", by, out.wrapped, mechanism=M.AES_KW)

        with pytest.raises(errors.DecryptionError):
            session.import_key("aes", by, out.wrapped, mechanism=M.AES_KWP)
        with pytest.raises(errors.UnsupportedOperationError, match="AES-KWP") as caught:
            session.export_key(odd, by, mechanism=M.AES_KW)
        assert "mechanism" == caught.value.facts["field"]


class TestExportIsRefused:
    @pytest.mark.parametrize(
        ("by", "algorithm"),
        [
            (A.AES_128_KW, A.AES_256_KW),
            (A.RSA_3072, A.AES_256_KW),
            (A.RSA_3072, A.HKDF_SHA_256),
            (A.RSA_2048, A.AES_128_GCM),
            (A.RSA_2048, A.EC_P256),
            (A.RSA_3072, A.ML_KEM_512),
            (A.RSA_3072, A.MLDSA44_ECDSA_P256_SHA256),
            (A.ML_KEM_768, A.ML_DSA_87),
            (A.ML_KEM_768, A.AES_256_KW),
            (A.AES_128_KW, A.MLDSA44_ECDSA_P256_SHA256),
        ],
    )
    def test_by_weaker_keys(
        self,
        session: Session,
        wrapping: dict[Algorithm, str],
        by: Algorithm,
        algorithm: Algorithm,
    ) -> None:
        """A wrapping key is at least as strong as what it wraps, both ways measured."""
        key = session.create_key(algorithm, exportable=True).key_id

        with pytest.raises(
            errors.UnsupportedOperationError, match="too weak"
        ) as caught:
            session.export_key(key, wrapping[by])

        assert "wrapping_key_id" == caught.value.facts["field"]
        assert by in str(caught.value)

    def test_the_rule_has_no_contradictions(self) -> None:
        """What is stronger wraps no less, and whoever is wrapped wraps no more."""
        rows = list(ALGORITHMS.values())
        wrapping = [row for row in rows if KeyUsage.WRAP in row.usages]
        wraps = {
            by.algorithm: {row.algorithm for row in rows if is_as_strong(by, row)}
            for by in wrapping
        }
        for one, other in itertools.product(wrapping, repeat=2):
            is_stronger = (
                one.strength_bits >= other.strength_bits
                and one.category >= other.category
            )
            if is_stronger or other.algorithm in wraps[one.algorithm]:
                assert wraps[other.algorithm] <= wraps[one.algorithm]

    def test_by_itself(self, session: Session) -> None:
        """A key does not wrap itself."""
        key = session.create_key("aes-kw", exportable=True).key_id

        with pytest.raises(errors.InvalidInputError, match="itself"):
            session.export_key(key, key)

    def test_without_the_usage(self, session: Session) -> None:
        """A wrapping key needs the usage; what it has is told."""
        key = session.create_key("aes", exportable=True).key_id
        only = session.create_key("aes-kw", usages=[KeyUsage.UNWRAP]).key_id

        for by in (only, session.create_key("ML-KEM-1024").key_id):
            with pytest.raises(errors.KeyUsageError) as caught:
                session.export_key(key, by)
            assert ("wrapping_key_id", "wrap") == (
                caught.value.facts["field"],
                caught.value.facts["usage"],
            )

    def test_by_retired_and_revoked_keys(self, session: Session) -> None:
        """A revoked wrapping key wraps nothing; a revoked key does not leave."""
        by = session.create_key("aes-kw").key_id
        key = session.create_key("aes", exportable=True).key_id
        session.revoke(by)
        with pytest.raises(errors.KeyStateError):
            session.export_key(key, by)

        session.rotate(by)
        session.revoke(key)
        with pytest.raises(errors.KeyStateError):
            session.export_key(key, by)

    @pytest.mark.parametrize(
        ("algorithm", "by", "field", "value"),
        [
            (A.AES_256_GCM, A.AES_256_KW, "format", KeyFormat.PKCS8),
            (A.EC_P256, A.AES_256_KW, "format", KeyFormat.RAW),
            (A.EC_P256, A.AES_256_KW, "format", KeyFormat.SEED),
            (A.MLKEM768_X25519_SHA3_256, A.AES_256_KW, "format", KeyFormat.SEED),
            (A.EC_P256, A.AES_256_KW, "mechanism", M.KEM_AES_KWP),
            (A.EC_P256, A.RSA_3072, "mechanism", M.AES_KW),
            (A.EC_P256, A.ML_KEM_1024, "mechanism", M.RSA_OAEP_AES_KWP),
            (A.EC_P256, A.AES_256_KW, "hash", HashAlgorithm.SHA_256),
        ],
    )
    def test_in_ways_that_a_key_has_not(
        self,
        session: Session,
        wrapping: dict[Algorithm, str],
        algorithm: Algorithm,
        by: Algorithm,
        field: str,
        value: Any,
    ) -> None:
        """A form is one of the exported key, mechanism and hash of the wrapping key."""
        key = session.create_key(algorithm, exportable=True).key_id

        with pytest.raises(errors.UnsupportedOperationError) as caught:
            session.export_key(key, wrapping[by], **{field: value})

        assert field == caught.value.facts["field"]

    def test_unknown_wrapping_keys(self, session: Session) -> None:
        """A wrapping key that isn't there is told by its field."""
        key = session.create_key("aes", exportable=True).key_id

        with pytest.raises(errors.KeyNotFoundError) as caught:
            session.export_key(key, "no-such-key")

        assert "wrapping_key_id" == caught.value.facts["field"]


CRYPT = (KeyUsage.ENCRYPT, KeyUsage.DECRYPT)


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
