# SPDX-License-Identifier: MIT
"""Signing and verifying, in every way that an algorithm has."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_private_key
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from hsm_core._internal.crypto.parameters import signature_parameters
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
from tests.contract.provider_rows import altered
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


class TestEveryWay:
    @EVERY_WAY
    def test_signature(
        self, algorithm: Algorithm, parameters: SignatureParameters
    ) -> None:
        """
        A signature has the standard's length and is of one message, byte by byte.
        """
        row, good = ALGORITHMS[algorithm], sign(algorithm, parameters)
        handle = PYCA.load_public(algorithm, public_der(algorithm))
        if parameters.encoding is SignatureEncoding.P1363:
            assert 2 * row.coordinate_bytes == len(good)
        elif row.family is Family.ECDSA:
            assert len(good) <= row.signature_bytes
        else:
            assert row.signature_bytes == len(good)

        handle.verify(MESSAGE, good, parameters)
        PYCA.load(algorithm, material(algorithm)).verify(MESSAGE, good, parameters)
        places = (*range(0, len(good), 1 + len(good) // 100), -1)
        wrong = [altered(good, place) for place in places]
        wrong += [b"", good[:-1], good[1:], good + b"\0", b"\0" + good, good * 2]
        for message, signature in (
            (b"another", good),
            *((MESSAGE, each) for each in wrong),
        ):
            with pytest.raises(SignatureMismatchError):
                handle.verify(message, signature, parameters)

    @PREHASHABLE
    def test_digest(
        self, algorithm: Algorithm, parameters: SignatureParameters
    ) -> None:
        """
        A digest stands for its message, and is exactly as long as its hash.
        """
        prehashed = replace(parameters, prehashed=True)
        handle = PYCA.load(algorithm, material(algorithm))
        size = parameters.hash.digest_bytes

        verify(algorithm, sign(algorithm, prehashed), parameters)
        verify(algorithm, sign(algorithm, parameters), prehashed, digest(parameters))
        for wrong in (size - 1, size + 1):
            for attempt in (
                partial(handle.sign, bytes(wrong), prehashed),
                partial(handle.verify, bytes(wrong), b"", prehashed),
            ):
                with pytest.raises(InputSizeError) as caught:
                    attempt()
                expected = {"field": "digest", "actual": wrong}
                limits = {"minimum": size, "maximum": size}
                assert expected | limits == caught.value.facts


class TestECDSA:
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


class TestPSS:
    @pytest.mark.parametrize(
        ("salt_bytes", "is_usual"), [(0, True), (20, True), (33, False), (222, False)]
    )
    def test_salt_of_others(self, salt_bytes: int, *, is_usual: bool) -> None:
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

    @pytest.mark.parametrize("salt_bytes", [-1, 223])
    def test_impossible_salt(self, salt_bytes: int) -> None:
        """
        A salt that doesn't fit into the modulus is an error of the caller.
        """
        with pytest.raises(InputSizeError) as caught:
            verify(Algorithm.RSA_2048, bytes(256), replace(PSS, salt_bytes=salt_bytes))

        assert "salt_bytes" == caught.value.facts["field"]
        assert 222 == caught.value.facts["maximum"]

    def test_mgf_hash(self) -> None:
        """
        Another MGF1 hash is another signature.
        """
        other = replace(PSS, mgf_hash=HashAlgorithm.SHA_512)

        with pytest.raises(SignatureMismatchError):
            verify(Algorithm.RSA_2048, sign(Algorithm.RSA_2048, PSS), other)

    @pytest.mark.parametrize(
        "wrong", [{"mgf_hash": HashAlgorithm.SHA_512}, {"salt_bytes": 20}]
    )
    def test_signs_one_way(self, wrong: dict[str, object]) -> None:
        """
        PSS signs with one hash for both, and a salt as long as it.
        """
        with pytest.raises(UnsupportedOperationError):
            sign(Algorithm.RSA_2048, replace(PSS, **wrong))


class TestSignatureParameters:
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
        parameters = replace(signature_parameters(algorithm), **wrong)
        handle = PYCA.load(algorithm, material(algorithm))

        with pytest.raises(UnsupportedOperationError):
            handle.sign(bytes(32), parameters)
        with pytest.raises(UnsupportedOperationError):
            handle.verify(bytes(32), b"", parameters)


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
