# SPDX-License-Identifier: MIT
"""The provider over cryptography: keys that it refuses, and what it serves."""

from __future__ import annotations

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from hsm_core._internal.crypto.pyca import PycaCryptoProvider, provider, symmetric
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family
from hsm_core.errors import InputSizeError, InvalidInputError
from tests.core.crypto_samples import ASYMMETRIC, PYCA, SERVED, material, public_der


class TestLoad:
    @pytest.mark.parametrize("algorithm", ASYMMETRIC)
    def test_traditional_form(self, algorithm: Algorithm) -> None:
        """
        PKCS#1 and SEC 1 keys are refused: material is PKCS#8.
        """
        key = load_der_private_key(material(algorithm), None)
        encrypted = key.private_bytes(
            Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
        forms = [encrypted]
        if ALGORITHMS[algorithm].family in {Family.RSA, Family.ECDSA}:
            forms.append(
                key.private_bytes(
                    Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()
                )
            )
        for form in forms:
            with pytest.raises(InvalidInputError, match="not a private key"):
                PYCA.load(algorithm, form)
            with pytest.raises(InvalidInputError, match="not a private key"):
                PYCA.load_foreign(algorithm, form)


class TestLoadPublic:
    def test_other_forms(self) -> None:
        """
        A compressed point, one off the curve and a bare RSA key are refused.
        """
        good, rsa_key = public_der(Algorithm.EC_P256), public_der(Algorithm.RSA_2048)
        key = load_der_public_key(good)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        point = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        header = bytes.fromhex("3039") + good[2:23] + bytes.fromhex("032200")
        load_der_public_key(header + point)  # the library would take it
        bare = load_der_public_key(rsa_key).public_bytes(
            Encoding.DER, PublicFormat.PKCS1
        )

        for algorithm, wrong in (
            (Algorithm.EC_P256, header + point),
            (Algorithm.EC_P256, good[:-64] + b"\x01" * 64),
            (Algorithm.RSA_2048, bare),
        ):
            with pytest.raises(InvalidInputError):
                PYCA.load_public(algorithm, wrong)


@pytest.mark.parametrize("field", ["plaintext", "aad"])
def test_longest_message(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    """More than the library can encrypt in one call is refused by name."""
    monkeypatch.setattr(symmetric, "MOST_BYTES", 40_000)
    data = {"plaintext": b"", "aad": b""} | {field: bytes(40_001)}

    with pytest.raises(InputSizeError) as caught:
        PYCA.load(Algorithm.AES_256_GCM, bytes(32)).seal(bytes(12), *data.values())

    facts = caught.value.facts
    assert (field, 40_000) == (facts["field"], facts["maximum"])


@pytest.mark.parametrize("family", [Family.ML_KEM, Family.ML_DSA])
def test_build_without_a_family(
    monkeypatch: pytest.MonkeyPatch, family: Family
) -> None:
    """A build of the library without a family serves all else, and raises nothing."""

    def missing(seed: bytes) -> object:
        raise UnsupportedAlgorithm("not in this build")

    left_out = {a for a in SERVED if ALGORITHMS[a].family is family}
    for algorithm in left_out:
        monkeypatch.setitem(provider.FROM_SEED, algorithm, missing)

    assert left_out
    assert PYCA.algorithms() - left_out == PycaCryptoProvider().algorithms()
