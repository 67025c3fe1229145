# SPDX-License-Identifier: MIT
"""How the asymmetric tests of cryptography-vectors are asked."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Final

import cryptography_vectors

from hsm_core import primitives
from hsm_core._internal.crypto.der import read_public_key_info, subject_public_key_info
from hsm_core.algorithms import (
    Algorithm,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
    parse_algorithm,
    spec,
)
from hsm_core.errors import (
    DecryptionError,
    SignatureMismatchError,
    UnknownAlgorithmError,
    UnsupportedOperationError,
)
from tests.vectors.key_forms import (
    ec_point_info,
    ec_private_info,
    edwards_private_info,
    rsa_public_info,
)
from tests.vectors.package import Block, field_bytes, read_blocks
from tests.vectors.tally import LOADING, Tally, Test
from tests.vectors.wycheproof_asymmetric import rsa_refusal

_EC_CURVES: Final = ("P-256", "P-384", "P-521")


def _stated(count: int, block: Block) -> Test:
    passed = block.get("Result", "P").startswith("P")
    return {"tcId": count, "result": "valid" if passed else "invalid"}


def _run_rsa(path: str, tally: Tally, scheme: SignatureScheme) -> int:
    def check(block: Block, algorithm: Algorithm) -> None:
        hashed = HashAlgorithm(_hash_name(block["SHAAlg"]))
        salt = block.get("SaltVal") if scheme is SignatureScheme.RSASSA_PSS else None
        primitives.verify(
            algorithm,
            rsa_public_info(int(block["n"], 16), int(block["e"], 16)),
            field_bytes(block, "S"),
            field_bytes(block, "Msg"),
            scheme=scheme,
            hash=hashed,
            salt_bytes=None if salt is None else len(salt) // 2,
        )

    count = 0
    for count, block in enumerate(read_blocks(path, "S"), 1):
        bits, exponent = int(block["mod"]), int(block["e"], 16)
        hashed = _hash_name(block["SHAAlg"])
        reason = rsa_refusal(bits, exponent, hashed, HashAlgorithm.SHA_256)
        name = f"RSA-{bits}"
        algorithm = Algorithm(name) if reason != "key length" else Algorithm.RSA_2048
        attempt = partial(check, block, algorithm)
        if reason:
            tally.refuse(_stated(count, block), reason, ValueError, attempt)
        else:
            tally.judge(algorithm, _stated(count, block), attempt)
    return count


def _hash_name(short: str) -> str:
    return f"SHA-{short.removeprefix('SHA').removeprefix('-')}"


def _curve(block: Block) -> tuple[str, str]:
    """Return curve and hash of a section such as ``P-256,SHA-256``."""
    found = re.findall(r"[PKB]-\d+|SHA-?\d+", block["section"])
    return found[0], found[-1]


def _run_ecdsa(path: str, tally: Tally) -> int:
    def check(block: Block, curve: str, hashed: str) -> None:
        algorithm = parse_algorithm(curve)
        size = spec(algorithm).coordinate_bytes
        r, s = (_number(block[name]).to_bytes(size, "big") for name in ("R", "S"))
        primitives.verify(
            algorithm,
            ec_point_info(algorithm, _point(algorithm, block)),
            r + s,
            field_bytes(block, "Msg"),
            hash=HashAlgorithm(hashed),
            encoding=SignatureEncoding.P1363,
        )

    count = 0
    for count, block in enumerate(read_blocks(path, "R"), 1):
        curve, short = _curve(block)
        hashed, test = _hash_name(short), _stated(count, block)
        attempt = partial(check, block, curve, hashed)
        if curve not in _EC_CURVES:
            tally.refuse(test, "curve", UnknownAlgorithmError, attempt)
        elif hashed not in set(HashAlgorithm):
            tally.refuse(test, "hash", ValueError, attempt)
        else:
            tally.judge(parse_algorithm(curve), test, attempt, LOADING)
    return count


def _run_ec_keys(path: str, tally: Tally) -> int:
    """Run tests of public keys, and of pairs where there is a private one."""

    def check(block: Block, curve: str) -> None:
        algorithm = parse_algorithm(curve)
        der = ec_point_info(algorithm, _point(algorithm, block))
        primitives.load_public_key(algorithm, der)
        if "d" in block:
            material = ec_private_info(algorithm, _number(block["d"]))
            assert der == primitives.public_key(algorithm, material)

    count, curve = 0, ""
    for count, block in enumerate(read_blocks(path, "Qx"), 1):
        found = re.search(r"[PKB]-\d+", block["section"])
        curve = found.group() if found else curve
        attempt = partial(check, block, curve)
        if curve not in _EC_CURVES:
            error = UnknownAlgorithmError
            tally.refuse(_stated(count, block), "curve", error, attempt)
        else:
            algorithm = parse_algorithm(curve)
            tally.judge(algorithm, _stated(count, block), attempt, LOADING)
    return count


def _run_ecdh(path: str, tally: Tally) -> int:
    curves = dict(zip("ABCDE", ("P-192", "P-224", *_EC_CURVES), strict=True))

    def check(block: Block, algorithm: Algorithm) -> None:
        ours, theirs = (_point(algorithm, block, n) for n in ("QsIUT", "QsCAVS"))
        material = ec_private_info(algorithm, _number(block["dsIUT"]), ours)
        peer = ec_point_info(algorithm, theirs)
        if primitives.ecdh(algorithm, material, peer) != field_bytes(block, "Z"):
            raise DecryptionError

    count = 0
    for count, block in enumerate(read_blocks(path, "Result"), 1):
        curve, test = curves[block["section"][1]], _stated(count, block)
        if curve not in _EC_CURVES:
            named = partial(parse_algorithm, curve)
            tally.refuse(test, "curve", UnknownAlgorithmError, named)
            continue
        algorithm = parse_algorithm(curve)
        attempt = partial(check, block, algorithm)
        tally.judge(algorithm, test, attempt, LOADING)
    return count


def _number(text: str) -> int:
    return int(text, 16)


def _point(algorithm: Algorithm, block: Block, prefix: str = "Q") -> bytes:
    """Return the point, of the wrong length if a coordinate is too long."""
    width = 2 * spec(algorithm).coordinate_bytes
    x, y = (block[prefix + name].lstrip("0").zfill(width) for name in "xy")
    return bytes.fromhex("04" + "".join(n.zfill(len(n) + len(n) % 2) for n in (x, y)))


def _run_ed25519(path: str, tally: Tally) -> int:
    with cryptography_vectors.open_vector_file(path, "r") as lines:
        records = [line.split(":")[:4] for line in lines]
    for count, (secret, public, message, signed) in enumerate(records, 1):
        texts = (secret[:64], public, message, signed[:128])
        values = tuple(map(bytes.fromhex, texts))
        test = {"tcId": count, "result": "valid"}
        attempt = partial(_check_eddsa, Algorithm.ED25519, *values)
        tally.judge(Algorithm.ED25519, test, attempt)
    return len(records)


def _run_ed448(path: str, tally: Tally) -> int:
    count, algorithm = 0, Algorithm.ED448
    for count, block in enumerate(read_blocks(path, "SIGNATURE"), 1):
        names = ("SECRET", "PUBLIC", "MESSAGE", "SIGNATURE")
        values = tuple(field_bytes(block, name) for name in names)
        test = {"tcId": count, "result": "valid"}
        if context := field_bytes(block, "CONTEXT"):
            der = subject_public_key_info(algorithm, values[1])
            verify = partial(primitives.verify, algorithm, der, values[3], values[2])
            error = UnsupportedOperationError
            tally.refuse(test, "context", error, partial(verify, context=context))
        else:
            tally.judge(algorithm, test, partial(_check_eddsa, algorithm, *values))
    return count


def _check_eddsa(
    algorithm: Algorithm, secret: bytes, public: bytes, message: bytes, signed: bytes
) -> None:
    material = edwards_private_info(algorithm, secret)
    der = primitives.public_key(algorithm, material)
    assert public == read_public_key_info(algorithm, der)
    primitives.verify(algorithm, der, signed, message)
    if primitives.sign(algorithm, material, message) != signed:
        raise SignatureMismatchError


def _run_x25519(path: str, tally: Tally) -> int:
    count, algorithm = 0, Algorithm.X25519

    def agree(block: Block) -> None:
        scalar, point = (field_bytes(block, f"INPUT_{n}") for n in ("SCALAR", "U"))
        made = primitives.ecdh(
            algorithm,
            edwards_private_info(algorithm, scalar),
            subject_public_key_info(algorithm, point),
        )
        if made != field_bytes(block, "OUTPUT_U"):
            raise DecryptionError

    for count, block in enumerate(read_blocks(path, "OUTPUT_U"), 1):
        test = {"tcId": count, "result": "valid"}
        tally.judge(algorithm, test, partial(agree, block))
    return count


_PSS, _PKCS1 = SignatureScheme.RSASSA_PSS, SignatureScheme.RSASSA_PKCS1_V1_5
_RSA_FOLDER: Final = "asymmetric/RSA/FIPS_186-2"
_EC_FOLDER: Final = "asymmetric/ECDSA/FIPS_186-"

ASYMMETRIC_FILES: Final[dict[str, Callable[[str, Tally], int]]] = {
    **{
        f"{_RSA_FOLDER}/{name}{edition}": partial(_run_rsa, scheme=scheme)
        for scheme, letters in ((_PKCS1, "15"), (_PSS, "PSS"))
        for name, edition in (
            (f"SigGen{letters}", "_186-2.txt"),
            (f"SigGen{letters}", "_186-3.rsp"),
            (f"SigVer{letters}", "_186-3.rsp"),
        )
    },
    **{
        f"{_EC_FOLDER}{edition}/{name}": run
        for edition in (2, 3)
        for name, run in (
            ("KeyPair.rsp", _run_ec_keys),
            ("PKV.rsp", _run_ec_keys),
            ("SigGen.txt", _run_ecdsa),
            ("SigVer.rsp", _run_ecdsa),
        )
    },
    **{
        f"asymmetric/ECDH/KASValidityTest_ECCStaticUnified_NOKC_ZZOnly_{side}.fax": (
            _run_ecdh
        )
        for side in ("init", "resp")
    },
    "asymmetric/Ed25519/sign.input": _run_ed25519,
    "asymmetric/Ed448/rfc8032.txt": _run_ed448,
    "asymmetric/X25519/rfc7748.txt": _run_x25519,
}
"""How each file is run, by its path in the package."""
