# SPDX-License-Identifier: MIT
"""Wycheproof's tests of RSA and elliptic curves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from hsm_core import primitives
from hsm_core.algorithms import (
    Algorithm,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
    parse_algorithm,
)
from hsm_core.errors import DecryptionError, InvalidInputError, SignatureMismatchError
from tests.vectors.key_forms import ec_point_info, ec_private_info, rsa_public_info
from tests.vectors.tally import LOADING, Tally, Test, expect_refusal
from tests.vectors.wycheproof import Group, octets

_RSA: Final = (Algorithm.RSA_2048, Algorithm.RSA_3072, Algorithm.RSA_4096)
_EXPONENT: Final = 65537


def _run_eddsa(group: Group, tally: Tally) -> None:
    algorithm = Algorithm.ED25519
    key = primitives.load_public_key(algorithm, octets(group, "publicKeyDer"))
    for test in group["tests"]:
        signature, message = octets(test, "sig"), octets(test, "msg")
        tally.judge(
            algorithm,
            test,
            partial(primitives.verify, algorithm, key, signature, message),
        )


def _run_ecdsa(group: Group, tally: Tally, encoding: SignatureEncoding) -> None:
    algorithm = parse_algorithm(group["publicKey"]["curve"])
    key = primitives.load_public_key(algorithm, octets(group, "publicKeyDer"))
    for test in group["tests"]:
        tally.judge(
            algorithm,
            test,
            partial(
                primitives.verify,
                algorithm,
                key,
                octets(test, "sig"),
                octets(test, "msg"),
                hash=HashAlgorithm(group["sha"]),
                encoding=encoding,
            ),
        )


def _run_ecdh(group: Group, tally: Tally) -> None:
    algorithm = parse_algorithm(group["curve"])
    is_point = group["encoding"] == "ecpoint"

    def agree(test: Test) -> None:
        public = octets(test, "public")
        made = primitives.ecdh(
            algorithm,
            ec_private_info(algorithm, int(test["private"], 16)),
            ec_point_info(algorithm, public) if is_point else public,
        )
        if made.hex() != test["shared"]:
            raise DecryptionError

    for test in group["tests"]:
        tally.judge(algorithm, test, partial(agree, test), LOADING)


def _run_rsa_verify(group: Group, tally: Tally, scheme: SignatureScheme) -> None:
    algorithm = Algorithm(f"RSA-{group['keySize']}")
    numbers = group["publicKey"]
    modulus, exponent = (int(numbers[n], 16) for n in ("modulus", "publicExponent"))
    key = rsa_public_info(modulus, exponent)
    is_pss = scheme is SignatureScheme.RSASSA_PSS
    if group["type"] == "RsassaPssWithParametersVerify":
        expect_refusal(
            InvalidInputError,
            partial(
                primitives.load_public_key, algorithm, octets(group, "publicKeyDer")
            ),
        )

    def check(test: Test) -> None:
        primitives.verify(
            algorithm,
            key,
            octets(test, "sig"),
            octets(test, "msg"),
            scheme=scheme,
            hash=HashAlgorithm(group["sha"]),
            mgf_hash=HashAlgorithm(group["mgfSha"]) if is_pss else None,
            salt_bytes=group["sLen"] if is_pss else None,
        )

    _run_rsa(group, tally, exponent, check)


def _run_rsa_sign(group: Group, tally: Tally) -> None:
    exponent = int(group["privateKey"]["publicExponent"], 16)
    key = _private_key(group, exponent)

    def compare(test: Test) -> None:
        made = primitives.sign(
            Algorithm(f"RSA-{group['keySize']}"),
            key,
            octets(test, "msg"),
            scheme=SignatureScheme.RSASSA_PKCS1_V1_5,
            hash=HashAlgorithm(group["sha"]),
        )
        if made != octets(test, "sig"):
            raise SignatureMismatchError

    _run_rsa(group, tally, exponent, compare)


def _run_oaep(group: Group, tally: Tally) -> None:
    exponent = int(group["privateKey"]["publicExponent"], 16)
    key = _private_key(group, exponent)

    def compare(test: Test) -> None:
        opened = primitives.oaep_decrypt(
            Algorithm(f"RSA-{group['keySize']}"),
            key,
            octets(test, "ct"),
            hash=HashAlgorithm(group["sha"]),
            mgf_hash=HashAlgorithm(group["mgfSha"]),
            label=octets(test, "label"),
        )
        assert opened == octets(test, "msg")

    _run_rsa(group, tally, exponent, compare)


def _run_rsa(
    group: Group, tally: Tally, exponent: int, attempt: Callable[[Test], None]
) -> None:
    reason = rsa_refusal(
        group["keySize"], exponent, group["sha"], group.get("mgfSha", "SHA-256")
    )
    for test in group["tests"]:
        if reason:
            tally.refuse(test, reason, ValueError, partial(attempt, test))
        else:
            algorithm = Algorithm(f"RSA-{group['keySize']}")
            tally.judge(algorithm, test, partial(attempt, test))


def _private_key(group: Group, exponent: int) -> primitives.Key:
    """Return the key, loaded once where it can be; else it must be refused."""
    material = octets(group, "privateKeyPkcs8")
    if group["keySize"] not in {2048, 3072, 4096} or exponent != _EXPONENT:
        for algorithm in _RSA:
            expect_refusal(
                InvalidInputError,
                partial(primitives.load_private_key, algorithm, material),
            )
        return material
    return primitives.load_private_key(Algorithm(f"RSA-{group['keySize']}"), material)


def _run_pkcs1_decrypt(group: Group, tally: Tally) -> None:
    algorithm = Algorithm(f"RSA-{group['keySize']}")
    key = primitives.load_private_key(algorithm, octets(group, "privateKeyPkcs8"))
    for test in group["tests"]:
        ciphertext = octets(test, "ct")
        tally.refuse(
            test,
            "PKCS#1 v1.5 decryption",
            DecryptionError,
            partial(primitives.oaep_decrypt, algorithm, key, ciphertext),
        )


def rsa_refusal(bits: int, exponent: int, hashed: str, mgf_hash: str) -> str:
    """Return why something can't be asked of RSA, or an empty string."""
    if f"RSA-{bits}" not in set(_RSA):
        return "key length"
    if hashed not in set(HashAlgorithm):
        return "hash"
    if mgf_hash not in set(HashAlgorithm):
        return "MGF1 hash"
    return "" if exponent == _EXPONENT else "public exponent"


_PSS: Final = partial(_run_rsa_verify, scheme=SignatureScheme.RSASSA_PSS)
ASYMMETRIC: Final[dict[str, Callable[[Group, Tally], None]]] = {
    "EcdhEcpointTest": _run_ecdh,
    "EcdhTest": _run_ecdh,
    "EcdsaP1363Verify": partial(_run_ecdsa, encoding=SignatureEncoding.P1363),
    "EcdsaVerify": partial(_run_ecdsa, encoding=SignatureEncoding.DER),
    "EddsaVerify": _run_eddsa,
    "RsaesOaepDecrypt": _run_oaep,
    "RsaesPkcs1Decrypt": _run_pkcs1_decrypt,
    "RsassaPkcs1Generate": _run_rsa_sign,
    "RsassaPkcs1Verify": partial(
        _run_rsa_verify, scheme=SignatureScheme.RSASSA_PKCS1_V1_5
    ),
    "RsassaPssVerify": _PSS,
    "RsassaPssWithParametersVerify": _PSS,
}
"""How groups are run, by their type."""
