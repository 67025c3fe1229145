# SPDX-License-Identifier: MIT
"""Signing and verifying, in every way that an algorithm has."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_private_key
from hypothesis import example, given
from hypothesis import strategies as st

from hsm_core._internal.crypto.parameters import (
    check_signing,
    check_verifying,
    signature_parameters,
)
from hsm_core._internal.crypto.pyca.curves import der_to_p1363, p1363_to_der
from hsm_core.algorithms import (
    ALGORITHMS,
    Algorithm,
    Family,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
)
from hsm_core.errors import (
    InputSizeError,
    MalformedError,
    SignatureMismatchError,
    UnsupportedOperationError,
)
from hsm_core.protocols import SignatureParameters
from tests.core.crypto_samples import PYCA, SIGNING, label, material, public_der

MESSAGE = b"a message"

EVERY_WAY = pytest.mark.parametrize(("algorithm", "parameters"), SIGNING, ids=label)
PREHASHABLE = pytest.mark.parametrize(
    ("algorithm", "parameters"),
    [(a, p) for a, p in SIGNING if ALGORITHMS[a].hashes],
    ids=label,
)
ECDSA = [r.algorithm for r in ALGORITHMS.values() if r.family is Family.ECDSA]
PSS = signature_parameters(Algorithm.RSA_2048)


def sign(algorithm: Algorithm, parameters: SignatureParameters) -> bytes:
    """Return a signature over the message, or over its digest."""
    data = digest(parameters) if parameters.prehashed else MESSAGE
    return PYCA.load(algorithm, material(algorithm)).sign(data, parameters)


def verify(
    algorithm: Algorithm,
    signature: bytes,
    parameters: SignatureParameters,
    message: bytes = MESSAGE,
) -> None:
    """Check a signature with the public half alone."""
    handle = PYCA.load_public(algorithm, public_der(algorithm))
    handle.verify(message, signature, parameters)


def digest(parameters: SignatureParameters) -> bytes:
    """Return the message's digest."""
    name = parameters.hash.value.replace("-", "").lower()
    return hashlib.new(name, MESSAGE).digest()


class TestSign:
    @EVERY_WAY
    def test_verifies(
        self, algorithm: Algorithm, parameters: SignatureParameters
    ) -> None:
        """
        What is signed verifies, with either half of the key.
        """
        signature = sign(algorithm, parameters)

        verify(algorithm, signature, parameters)
        PYCA.load(algorithm, material(algorithm)).verify(MESSAGE, signature, parameters)

    @EVERY_WAY
    def test_length(
        self, algorithm: Algorithm, parameters: SignatureParameters
    ) -> None:
        """
        Signatures have the length that the standard says.
        """
        row = ALGORITHMS[algorithm]
        length = len(sign(algorithm, parameters))

        if row.family is not Family.ECDSA:
            assert row.signature_bytes == length
        elif parameters.encoding is SignatureEncoding.P1363:
            assert 2 * row.coordinate_bytes == length
        else:
            assert length <= row.signature_bytes

    @PREHASHABLE
    def test_digest_is_message(
        self, algorithm: Algorithm, parameters: SignatureParameters
    ) -> None:
        """
        A signature over the digest is one over the message, both ways.
        """
        prehashed = replace(parameters, prehashed=True)

        verify(algorithm, sign(algorithm, prehashed), parameters)
        verify(algorithm, sign(algorithm, parameters), prehashed, digest(parameters))

    @PREHASHABLE
    @pytest.mark.parametrize("change", [-1, 1])
    def test_digest_of_wrong_length(
        self, algorithm: Algorithm, parameters: SignatureParameters, change: int
    ) -> None:
        """
        A digest must be exactly as long as its hash.
        """
        size = parameters.hash.digest_bytes
        prehashed = replace(parameters, prehashed=True)
        handle = PYCA.load(algorithm, material(algorithm))
        for attempt in (
            lambda: handle.sign(bytes(size + change), prehashed),
            lambda: handle.verify(bytes(size + change), b"", prehashed),
        ):
            with pytest.raises(InputSizeError) as caught:
                attempt()

            assert {
                "field": "digest",
                "actual": size + change,
                "minimum": size,
                "maximum": size,
            } == caught.value.facts

    @pytest.mark.parametrize(
        ("algorithm", "parameters"),
        [
            (Algorithm.ED25519, signature_parameters(Algorithm.ED25519)),
            (
                Algorithm.RSA_2048,
                signature_parameters(
                    Algorithm.RSA_2048, scheme=SignatureScheme.RSASSA_PKCS1_V1_5
                ),
            ),
        ],
        ids=label,
    )
    def test_deterministic(
        self, algorithm: Algorithm, parameters: SignatureParameters
    ) -> None:
        """
        Ed25519 and PKCS#1 v1.5 sign a message the same way every time.
        """
        assert sign(algorithm, parameters) == sign(algorithm, parameters)

    @pytest.mark.parametrize("algorithm", ECDSA)
    def test_unpaired_hash(self, algorithm: Algorithm) -> None:
        """
        ECDSA signs with the curve's own hash only, but verifies with any SHA-2.
        """
        paired = ALGORITHMS[algorithm].hashes[0]
        for other in set(HashAlgorithm) - {paired}:
            parameters = signature_parameters(algorithm, hash=other)
            with pytest.raises(UnsupportedOperationError, match="signs only with"):
                sign(algorithm, parameters)
            with pytest.raises(SignatureMismatchError):
                verify(algorithm, b"", parameters)

    def test_threads_share_a_key(self) -> None:
        """
        Many threads sign with one handle at a time.
        """
        parameters = signature_parameters(Algorithm.EC_P256)
        handle = PYCA.load(Algorithm.EC_P256, material(Algorithm.EC_P256))
        messages = [str(number).encode() for number in range(200)]

        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda m: handle.sign(m, parameters), messages))

        for message, signature in zip(messages, made, strict=True):
            verify(Algorithm.EC_P256, signature, parameters, message)


class TestVerify:
    @EVERY_WAY
    def test_other_message(
        self, algorithm: Algorithm, parameters: SignatureParameters
    ) -> None:
        """
        A signature is over one message only.
        """
        with pytest.raises(SignatureMismatchError):
            verify(algorithm, sign(algorithm, parameters), parameters, b"another")

    @EVERY_WAY
    def test_every_changed_byte(
        self, algorithm: Algorithm, parameters: SignatureParameters
    ) -> None:
        """
        A signature with any one byte changed is a mismatch and nothing else.

        Of long signatures every few bytes are tried.
        """
        good = sign(algorithm, parameters)
        handle = PYCA.load_public(algorithm, public_der(algorithm))
        for place in range(0, len(good), 1 + len(good) // 600):
            changed = bytearray(good)
            changed[place] ^= 0x80
            with pytest.raises(SignatureMismatchError):
                handle.verify(MESSAGE, bytes(changed), parameters)

    @EVERY_WAY
    def test_wrong_length(
        self, algorithm: Algorithm, parameters: SignatureParameters
    ) -> None:
        """
        A signature that is shorter or longer, even by zeros, is a mismatch.
        """
        good = sign(algorithm, parameters)
        for wrong in (b"", good[:-1], good[1:], good + b"\0", b"\0" + good, good * 2):
            with pytest.raises(SignatureMismatchError):
                verify(algorithm, wrong, parameters)

    @pytest.mark.parametrize("algorithm", ECDSA)
    def test_other_encoding(self, algorithm: Algorithm) -> None:
        """
        A good signature in the encoding that wasn't asked for is a mismatch.
        """
        der, p1363 = (
            signature_parameters(algorithm, encoding=encoding)
            for encoding in SignatureEncoding
        )

        with pytest.raises(SignatureMismatchError):
            verify(algorithm, sign(algorithm, der), p1363)
        with pytest.raises(SignatureMismatchError):
            verify(algorithm, sign(algorithm, p1363), der)

    def test_pss_salt(self) -> None:
        """
        The salt's length may be given, and then it must be that one.
        """
        signature = sign(Algorithm.RSA_2048, PSS)

        verify(Algorithm.RSA_2048, signature, replace(PSS, salt_bytes=32))
        for other in (0, 31, 33, 222):
            with pytest.raises(SignatureMismatchError):
                verify(Algorithm.RSA_2048, signature, replace(PSS, salt_bytes=other))

    @pytest.mark.parametrize(
        ("salt_bytes", "is_usual"), [(0, True), (20, True), (33, False), (222, False)]
    )
    def test_pss_salt_of_others(self, salt_bytes: int, *, is_usual: bool) -> None:
        """
        A salt that is longer than the hash is taken only if its length is given.
        """
        private = load_der_private_key(material(Algorithm.RSA_2048), None)
        assert isinstance(private, rsa.RSAPrivateKey)
        scheme = padding.PSS(padding.MGF1(SHA256()), salt_bytes)
        signature = private.sign(MESSAGE, scheme, SHA256())
        unusual = pytest.raises(SignatureMismatchError)

        verify(Algorithm.RSA_2048, signature, replace(PSS, salt_bytes=salt_bytes))
        with nullcontext() if is_usual else unusual:
            verify(Algorithm.RSA_2048, signature, PSS)

    def test_pss_salt_costs_no_more(self) -> None:
        """
        A salt of unusual length is verified with one hash of the message, too.
        """
        loaded = load_der_private_key(material(Algorithm.RSA_2048), password=None)
        assert isinstance(loaded, rsa.RSAPrivateKey)
        handle = PYCA.load(Algorithm.RSA_2048, material(Algorithm.RSA_2048))
        message, spent = bytes(8 << 20), {}
        for salt_bytes in (32, 31):
            scheme = padding.PSS(padding.MGF1(SHA256()), salt_bytes)
            signature = loaded.sign(message, scheme, SHA256())
            begun = time.thread_time()
            handle.verify(message, signature, PSS)
            spent[salt_bytes] = time.thread_time() - begun

        assert spent[31] < 8 * spent[32]

    @pytest.mark.parametrize("salt_bytes", [-1, 223])
    def test_impossible_salt(self, salt_bytes: int) -> None:
        """
        A salt that doesn't fit into the modulus is an error of the caller.
        """
        with pytest.raises(InputSizeError) as caught:
            verify(Algorithm.RSA_2048, bytes(256), replace(PSS, salt_bytes=salt_bytes))

        assert "salt_bytes" == caught.value.facts["field"]
        assert 222 == caught.value.facts["maximum"]

    def test_pss_mgf_hash(self) -> None:
        """
        Another MGF1 hash is another signature.
        """
        other = replace(PSS, mgf_hash=HashAlgorithm.SHA_512)

        with pytest.raises(SignatureMismatchError):
            verify(Algorithm.RSA_2048, sign(Algorithm.RSA_2048, PSS), other)


class TestSignatureParameters:
    def test_defaults(self) -> None:
        """
        RSA signs with PSS and SHA-256, ECDSA with the paired hash and DER.
        """
        assert (
            SignatureParameters(
                scheme=SignatureScheme.RSASSA_PSS,
                hash=HashAlgorithm.SHA_256,
                mgf_hash=HashAlgorithm.SHA_256,
            )
            == PSS
        )
        assert SignatureParameters(
            scheme=SignatureScheme.ECDSA,
            hash=HashAlgorithm.SHA_384,
            mgf_hash=HashAlgorithm.SHA_384,
        ) == signature_parameters(Algorithm.EC_P384)

    @pytest.mark.parametrize(
        ("algorithm", "wrong"),
        [
            (Algorithm.AES_256_GCM, {}),
            (Algorithm.HMAC_SHA_256, {}),
            (Algorithm.HKDF_SHA_256, {}),
            (Algorithm.X25519, {}),
            (Algorithm.ML_KEM_768, {}),
            (Algorithm.MLKEM768_X25519_SHA3_256, {}),
            (Algorithm.RSA_2048, {"encoding": SignatureEncoding.DER}),
            (Algorithm.ED25519, {"encoding": SignatureEncoding.P1363}),
            (Algorithm.ED25519, {"hash": HashAlgorithm.SHA_512}),
            (Algorithm.EC_P256, {"mgf_hash": HashAlgorithm.SHA_256}),
            (Algorithm.ML_DSA_65, {"hash": HashAlgorithm.SHA_512}),
            (Algorithm.SLH_DSA_SHA2_128S, {"hash": HashAlgorithm.SHA_256}),
            (Algorithm.RSA_2048, {"context": b"c"}),
            (Algorithm.ED448, {"context": b"c"}),
            (Algorithm.EC_P256, {"external_mu": True}),
            (Algorithm.SLH_DSA_SHA2_128S, {"external_mu": True}),
            (Algorithm.MLDSA65_ED25519_SHA512, {"external_mu": True}),
            (Algorithm.ML_DSA_65, {"external_mu": True, "context": b"c"}),
            (
                Algorithm.RSA_2048,
                {
                    "scheme": SignatureScheme.RSASSA_PKCS1_V1_5,
                    "mgf_hash": HashAlgorithm.SHA_256,
                },
            ),
        ],
    )
    def test_no_such_parameter(
        self, algorithm: Algorithm, wrong: dict[str, object]
    ) -> None:
        """
        A parameter that an algorithm doesn't have is refused, never ignored.
        """
        with pytest.raises(UnsupportedOperationError):
            signature_parameters(algorithm, **wrong)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("algorithm", "wrong"),
        [
            (Algorithm.RSA_2048, {"scheme": SignatureScheme.ECDSA}),
            (Algorithm.EC_P256, {"scheme": SignatureScheme.RSASSA_PSS}),
            (Algorithm.ED25519, {"scheme": SignatureScheme.ECDSA}),
            (Algorithm.RSA_2048, {"encoding": SignatureEncoding.P1363}),
            (Algorithm.ED25519, {"encoding": SignatureEncoding.P1363}),
            (Algorithm.ED25519, {"prehashed": True}),
            (Algorithm.ED25519, {"context": b"c"}),
            (Algorithm.ED25519, {"external_mu": True}),
            (Algorithm.ML_DSA_65, {"prehashed": True}),
            (Algorithm.ML_DSA_65, {"external_mu": True, "prehashed": True}),
            (Algorithm.ML_DSA_65, {"external_mu": True, "context": b"c"}),
            (Algorithm.ED25519, {"salt_bytes": 32}),
            (Algorithm.EC_P256, {"salt_bytes": 32}),
            (
                Algorithm.RSA_2048,
                {"scheme": SignatureScheme.RSASSA_PKCS1_V1_5, "salt_bytes": 32},
            ),
        ],
    )
    def test_handles_check_again(
        self, algorithm: Algorithm, wrong: dict[str, object]
    ) -> None:
        """
        A handle refuses parameters that don't fit, to sign and to verify.
        """
        parameters = replace(signature_parameters(algorithm), **wrong)  # type: ignore[arg-type]
        handle = PYCA.load(algorithm, material(algorithm))

        with pytest.raises(UnsupportedOperationError):
            handle.sign(bytes(32), parameters)
        with pytest.raises(UnsupportedOperationError):
            handle.verify(bytes(32), b"", parameters)

    @pytest.mark.parametrize(
        "wrong", [{"mgf_hash": HashAlgorithm.SHA_512}, {"salt_bytes": 20}]
    )
    def test_pss_signs_one_way(self, wrong: dict[str, object]) -> None:
        """
        PSS signs with one hash for both, and a salt as long as it.
        """
        with pytest.raises(UnsupportedOperationError):
            sign(Algorithm.RSA_2048, replace(PSS, **wrong))  # type: ignore[arg-type]

    def test_pss_salt_as_long_as_the_hash(self) -> None:
        """
        Asking to sign with the salt's usual length is allowed.
        """
        asked = replace(PSS, salt_bytes=32)

        verify(Algorithm.RSA_2048, sign(Algorithm.RSA_2048, asked), asked)

    @pytest.mark.parametrize(
        "algorithm",
        [
            Algorithm.ML_DSA_44,
            Algorithm.SLH_DSA_SHAKE_256F,
            Algorithm.MLDSA44_ECDSA_P256_SHA256,
        ],
    )
    def test_context(self, algorithm: Algorithm) -> None:
        """
        A context has at most 255 bytes.
        """
        longest = signature_parameters(algorithm, context=bytes(255))
        check_signing(algorithm, b"", longest)
        check_verifying(algorithm, b"", longest)

        attempts: list[Callable[[], object]] = [
            lambda: signature_parameters(algorithm, context=bytes(256)),
            lambda: check_signing(algorithm, b"", replace(longest, context=bytes(256))),
            lambda: check_verifying(
                algorithm, b"", replace(longest, context=bytes(256))
            ),
        ]
        for attempt in attempts:
            with pytest.raises(InputSizeError) as caught:
                attempt()

            assert "context" == caught.value.facts["field"]
            assert 255 == caught.value.facts["maximum"]

    @pytest.mark.parametrize("size", [0, 63, 65])
    def test_mu_of_wrong_length(self, size: int) -> None:
        """
        An external mu has exactly 64 bytes.
        """
        parameters = signature_parameters(Algorithm.ML_DSA_44, external_mu=True)
        for check in (check_signing, check_verifying):
            check(Algorithm.ML_DSA_44, bytes(64), parameters)
            with pytest.raises(InputSizeError) as caught:
                check(Algorithm.ML_DSA_44, bytes(size), parameters)

            assert "mu" == caught.value.facts["field"]

    @pytest.mark.parametrize(
        ("algorithm", "paired"),
        [
            (Algorithm.MLDSA44_ECDSA_P256_SHA256, HashAlgorithm.SHA_256),
            (Algorithm.MLDSA65_ED25519_SHA512, HashAlgorithm.SHA_512),
        ],
    )
    def test_composites_prehash_one_way(
        self, algorithm: Algorithm, paired: HashAlgorithm
    ) -> None:
        """
        A composite takes a digest of its own hash, to sign and to verify.
        """
        own = signature_parameters(algorithm, prehashed=True)
        assert paired is own.hash
        for check in (check_signing, check_verifying):
            check(algorithm, bytes(paired.digest_bytes), own)
            for other in set(HashAlgorithm) - {paired}:
                with pytest.raises(UnsupportedOperationError, match=paired):
                    check(
                        algorithm,
                        bytes(other.digest_bytes),
                        replace(own, hash=other),
                    )


class TestEncodings:
    @given(r=st.integers(1, 2**256 - 1), s=st.integers(1, 2**256 - 1))
    @example(r=1, s=2**256 - 1)
    @example(r=2**255, s=127)
    def test_there_and_back(self, r: int, s: int) -> None:
        """
        Both encodings hold the same two numbers.
        """
        fixed = r.to_bytes(32, "big") + s.to_bytes(32, "big")

        assert encode_dss_signature(r, s) == p1363_to_der(fixed, 32)
        assert fixed == der_to_p1363(p1363_to_der(fixed, 32), 32)

    @given(data=st.binary(max_size=80))
    def test_only_one_length(self, data: bytes) -> None:
        """
        The fixed form has one length; DER that is read is DER that we would write.
        """
        if len(data) != 64:
            with pytest.raises(MalformedError):
                p1363_to_der(data, 32)
        try:
            fixed = der_to_p1363(data, 32)
        except MalformedError:
            return

        assert data == p1363_to_der(fixed, 32)

    @pytest.mark.parametrize(
        "wrong",
        [
            b"",
            bytes.fromhex("30060201010201"),
            bytes.fromhex("3006020101020101ff"),
            bytes.fromhex("308106020101020101"),
            bytes.fromhex("300702020001020101"),
            bytes.fromhex("30060201ff020101"),
            encode_dss_signature(2**256, 1),
        ],
        ids=["empty", "cut", "longer", "ber", "padded", "negative", "too long"],
    )
    def test_no_other_der(self, wrong: bytes) -> None:
        """
        BER, padding, signs and numbers that don't fit are refused.
        """
        with pytest.raises(MalformedError):
            der_to_p1363(wrong, 32)
