# SPDX-License-Identifier: MIT
"""
How the tests of each type of Wycheproof group are asked of `hsm_core.primitives`.

What can't be asked for is asked for all the same, as far as it can be written down, and
must be refused. Run as a program, this prints the rows of the published table::

    python -m tests.vectors.wycheproof_runs
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsm_core import primitives
from hsm_core.algorithms import (
    Algorithm,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
    parse_algorithm,
)
from hsm_core.errors import (
    DecryptionError,
    InputSizeError,
    InvalidInputError,
    MacMismatchError,
    SignatureMismatchError,
    UnknownAlgorithmError,
)
from tests.support import vectors_folder
from tests.vectors.wycheproof import Group, Tally, Test, read_groups

__all__ = ["PREFIXES", "run_file"]

PREFIXES: Final = ("aes_gcm_", "ecdsa_", "ed25519_", "hmac_", "rsa_")
"""Files of the families that the table of algorithms has."""

_AES: Final = Algorithm.AES_256_GCM
_RSA: Final = (Algorithm.RSA_2048, Algorithm.RSA_3072, Algorithm.RSA_4096)


def run_file(path: Path) -> Tally:
    """Run every test of a file."""
    tally = Tally()
    for group in read_groups(path):
        _RUNS[group["type"]](group, tally)
    return tally


def _bytes(of: Group | Test, name: str) -> bytes:
    return bytes.fromhex(of[name])


def _run_aead(group: Group, tally: Tally) -> None:
    for test in group["tests"]:
        key, iv, aad, message = (_bytes(test, n) for n in ("key", "iv", "aad", "msg"))
        sealed = _bytes(test, "ct") + _bytes(test, "tag")
        encrypt = partial(primitives.aead_encrypt, _AES, key, iv, message, aad)
        decrypt = partial(primitives.aead_decrypt, _AES, key, iv, sealed, aad)
        reason = (
            "key length"
            if group["keySize"] != 256
            else "IV length"
            if group["ivSize"] != 96
            else ""
        )
        if reason:
            tally.refuse(test, reason, InputSizeError, encrypt)
            if test["result"] == "valid":
                _expect_refusal(InputSizeError, decrypt)
            continue
        if test["result"] == "valid":
            assert sealed == encrypt()
            assert message == decrypt()
        tally.judge(test, decrypt)


def _run_mac(group: Group, tally: Tally) -> None:
    for test in group["tests"]:
        arguments = tuple(_bytes(test, name) for name in ("key", "msg", "tag"))
        check = partial(_verify_mac, group["algorithm"], *arguments)
        if group["algorithm"] != "HMACSHA256":
            tally.refuse(test, "algorithm", UnknownAlgorithmError, check)
        elif group["keySize"] != 256:
            tally.refuse(test, "key length", InputSizeError, check)
        elif group["tagSize"] != 256:
            tally.refuse(test, "tag length", MacMismatchError, check)
        else:
            tally.judge(test, check)


def _verify_mac(name: str, key: bytes, message: bytes, tag: bytes) -> None:
    primitives.verify_mac(parse_algorithm(name), key, message, tag)


def _run_eddsa(group: Group, tally: Tally) -> None:
    algorithm = Algorithm.ED25519
    key = primitives.load_public_key(algorithm, _bytes(group, "publicKeyDer"))
    for test in group["tests"]:
        signature, message = _bytes(test, "sig"), _bytes(test, "msg")
        tally.judge(
            test, partial(primitives.verify, algorithm, key, signature, message)
        )


def _run_ecdsa(group: Group, tally: Tally, encoding: SignatureEncoding) -> None:
    algorithm = parse_algorithm(group["publicKey"]["curve"])
    key = primitives.load_public_key(algorithm, _bytes(group, "publicKeyDer"))
    for test in group["tests"]:
        tally.judge(
            test,
            partial(
                primitives.verify,
                algorithm,
                key,
                _bytes(test, "sig"),
                _bytes(test, "msg"),
                hash=HashAlgorithm(group["sha"]),
                encoding=encoding,
            ),
        )


def _run_rsa_verify(group: Group, tally: Tally, scheme: SignatureScheme) -> None:
    algorithm = Algorithm(f"RSA-{group['keySize']}")
    key = _rsa_public_key(group)
    is_pss = scheme is SignatureScheme.RSASSA_PSS
    if group["type"] == "RsassaPssWithParametersVerify":
        _expect_refusal(
            InvalidInputError,
            partial(
                primitives.load_public_key, algorithm, _bytes(group, "publicKeyDer")
            ),
        )

    def check(test: Test) -> None:
        primitives.verify(
            algorithm,
            key,
            _bytes(test, "sig"),
            _bytes(test, "msg"),
            scheme=scheme,
            hash=HashAlgorithm(group["sha"]),
            mgf_hash=HashAlgorithm(group["mgfSha"]) if is_pss else None,
            salt_bytes=group["sLen"] if is_pss else None,
        )

    reason = _rsa_refusal(group, group["publicKey"]["publicExponent"])
    for test in group["tests"]:
        if reason:
            tally.refuse(test, reason, ValueError, partial(check, test))
        else:
            tally.judge(test, partial(check, test))


def _run_rsa_sign(group: Group, tally: Tally) -> None:
    algorithm = Algorithm(f"RSA-{group['keySize']}")
    reason = _rsa_refusal(group, group["privateKey"]["publicExponent"])
    material: primitives.Key = _bytes(group, "privateKeyPkcs8")
    if not reason:
        material = primitives.load_private_key(
            algorithm, _bytes(group, "privateKeyPkcs8")
        )

    def compare(test: Test) -> None:
        made = primitives.sign(
            algorithm,
            material,
            _bytes(test, "msg"),
            scheme=SignatureScheme.RSASSA_PKCS1_V1_5,
            hash=HashAlgorithm(group["sha"]),
        )
        if made != _bytes(test, "sig"):
            raise SignatureMismatchError

    for test in group["tests"]:
        if reason:
            tally.refuse(test, reason, ValueError, partial(compare, test))
        else:
            tally.judge(test, partial(compare, test))


def _run_oaep(group: Group, tally: Tally) -> None:
    material = _bytes(group, "privateKeyPkcs8")
    reason = _rsa_refusal(group, group["privateKey"]["publicExponent"])
    if reason == "key length":
        for algorithm in _RSA:
            _expect_refusal(
                InvalidInputError,
                partial(primitives.load_private_key, algorithm, material),
            )
    key: primitives.Key = material
    if not reason:
        key = primitives.load_private_key(
            Algorithm(f"RSA-{group['keySize']}"), material
        )

    def compare(test: Test) -> None:
        opened = primitives.oaep_decrypt(
            Algorithm(f"RSA-{group['keySize']}"),
            key,
            _bytes(test, "ct"),
            hash=HashAlgorithm(group["sha"]),
            mgf_hash=HashAlgorithm(group["mgfSha"]),
            label=_bytes(test, "label"),
        )
        assert opened == _bytes(test, "msg")

    for test in group["tests"]:
        if reason:
            tally.refuse(test, reason, ValueError, partial(compare, test))
        else:
            tally.judge(test, partial(compare, test))


def _run_pkcs1_decrypt(group: Group, tally: Tally) -> None:
    algorithm = Algorithm(f"RSA-{group['keySize']}")
    key = primitives.load_private_key(algorithm, _bytes(group, "privateKeyPkcs8"))
    for test in group["tests"]:
        ciphertext = _bytes(test, "ct")
        tally.refuse(
            test,
            "operation",
            DecryptionError,
            partial(primitives.oaep_decrypt, algorithm, key, ciphertext),
        )


def _rsa_refusal(group: Group, exponent: str) -> str:
    """Return why a group can't be asked for, or an empty string."""
    if f"RSA-{group['keySize']}" not in set(_RSA):
        return "key length"
    if group["sha"] not in set(HashAlgorithm):
        return "hash"
    if group.get("mgfSha", "SHA-256") not in set(HashAlgorithm):
        return "MGF1 hash"
    return "" if int(exponent, 16) == 65537 else "public exponent"


def _rsa_public_key(group: Group) -> bytes:
    """Return rsaEncryption SubjectPublicKeyInfo of a group's numbers."""
    modulus, exponent = (
        int(group["publicKey"][name], 16) for name in ("modulus", "publicExponent")
    )
    return (
        RSAPublicNumbers(exponent, modulus)
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )


def _expect_refusal(error: type[Exception], attempt: Callable[[], object]) -> None:
    try:
        attempt()
    except error:
        return
    raise AssertionError(f"{attempt} was not refused.")


_PSS: Final = partial(_run_rsa_verify, scheme=SignatureScheme.RSASSA_PSS)
_RUNS: Final[dict[str, Callable[[Group, Tally], None]]] = {
    "AeadTest": _run_aead,
    "EcdsaP1363Verify": partial(_run_ecdsa, encoding=SignatureEncoding.P1363),
    "EcdsaVerify": partial(_run_ecdsa, encoding=SignatureEncoding.DER),
    "EddsaVerify": _run_eddsa,
    "MacTest": _run_mac,
    "RsaesOaepDecrypt": _run_oaep,
    "RsaesPkcs1Decrypt": _run_pkcs1_decrypt,
    "RsassaPkcs1Generate": _run_rsa_sign,
    "RsassaPkcs1Verify": partial(
        _run_rsa_verify, scheme=SignatureScheme.RSASSA_PKCS1_V1_5
    ),
    "RsassaPssVerify": _PSS,
    "RsassaPssWithParametersVerify": _PSS,
}

if __name__ == "__main__":
    for file in sorted(vectors_folder("wycheproof").glob("*.json.gz")):
        if file.name.startswith(PREFIXES):
            name = file.name.removesuffix(".json.gz")
            sys.stdout.write(run_file(file).row(name) + "\n")
