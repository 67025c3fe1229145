# SPDX-License-Identifier: MIT
"""Wycheproof's tests of ciphers, MACs, key wrap and derivation."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Final

from hsm_core import primitives
from hsm_core.algorithms import Algorithm, HashAlgorithm, parse_algorithm, spec
from hsm_core.errors import (
    InputSizeError,
    InvalidInputError,
    MacMismatchError,
    UnknownAlgorithmError,
)
from tests.vectors.tally import REJECTIONS, Tally, expect_refusal
from tests.vectors.wycheproof import Group, Test, octets

_TAG_BITS: Final = 128
_NONCE_BITS: Final = 96
_JOSE: Final = frozenset({"jws", "jwe"})


def _run_aead(group: Group, tally: Tally) -> None:
    by_key = {128: Algorithm.AES_128_GCM, 256: Algorithm.AES_256_GCM}
    algorithm = by_key.get(group["keySize"], Algorithm.AES_256_GCM)
    for test in group["tests"]:
        key, iv, aad, message = (octets(test, n) for n in ("key", "iv", "aad", "msg"))
        sealed = octets(test, "ct") + octets(test, "tag")
        encrypt = partial(primitives.aead_encrypt, algorithm, key, iv, message, aad)
        decrypt = partial(primitives.aead_decrypt, algorithm, key, iv, sealed, aad)
        reason = (
            "key length"
            if group["keySize"] not in by_key
            else "IV length"
            if group["ivSize"] != _NONCE_BITS
            else ""
        )
        if reason:
            tally.refuse(test, reason, InputSizeError, encrypt)
            if test["result"] == "valid":
                expect_refusal(InputSizeError, decrypt)
            continue
        assert group["tagSize"] == _TAG_BITS
        if test["result"] == "valid":
            assert sealed == encrypt()
            assert message == decrypt()
        tally.judge(algorithm, test, decrypt)


def _run_mac(group: Group, tally: Tally) -> None:
    algorithm = parse_algorithm("HMAC-SHA-" + group["algorithm"][-3:])
    size = spec(algorithm).key_bytes
    for test in group["tests"]:
        check = partial(
            primitives.verify_mac,
            algorithm,
            *(octets(test, name) for name in ("key", "msg", "tag")),
        )
        if group["keySize"] != 8 * size:
            tally.refuse(test, "key length", InputSizeError, check)
        elif group["tagSize"] != 8 * size:
            tally.refuse(test, "tag length", MacMismatchError, check)
        else:
            tally.judge(algorithm, test, check)


def _run_key_wrap(group: Group, tally: Tally) -> None:
    padded = group["algorithm"] == "AES-KWP"
    by_key = {128: Algorithm.AES_128_KW, 256: Algorithm.AES_256_KW}
    algorithm = by_key.get(group["keySize"], Algorithm.AES_256_KW)
    for test in group["tests"]:
        key, data, wrapped = (octets(test, name) for name in ("key", "msg", "ct"))
        unwrap = partial(primitives.key_unwrap, algorithm, key, wrapped, padded=padded)
        wrap = partial(primitives.key_wrap, algorithm, key, data, padded=padded)
        if group["keySize"] not in by_key:
            tally.refuse(test, "key length", InputSizeError, unwrap)
            expect_refusal(InputSizeError, wrap)
            continue
        if test["result"] == "valid":
            assert wrapped == wrap()
            assert data == unwrap()
        elif set(test["flags"]) & {"EmptyKey", "ShortKey", "WrongDataSize"}:
            expect_refusal(InputSizeError, wrap)
        tally.judge(algorithm, test, unwrap)


def _run_hkdf(group: Group, tally: Tally) -> None:
    hashed = HashAlgorithm(group["algorithm"].removeprefix("HKDF-"))
    algorithm = Algorithm(f"HKDF-{hashed}")

    def derive(test: Test) -> None:
        made = primitives.hkdf(
            hashed,
            octets(test, "ikm"),
            salt=octets(test, "salt"),
            info=octets(test, "info"),
            length=test["size"],
        )
        assert made == octets(test, "okm")

    for test in group["tests"]:
        tally.judge(
            algorithm, test, partial(derive, test), (*REJECTIONS, InputSizeError)
        )


def _run_pbkdf2(group: Group, tally: Tally) -> None:
    for test in group["tests"]:
        tally.refuse(
            test,
            "password-based derivation",
            UnknownAlgorithmError,
            partial(parse_algorithm, group["algorithm"]),
        )


def _run_jose(group: Group, tally: Tally) -> None:
    """Offer each object, and the keys beside it, where a public key belongs."""
    keys = json.dumps(group.get("public", group.get("private"))).encode()
    for test in group["tests"]:
        for offered in (keys, *(str(test[n]).encode() for n in _JOSE & set(test))):
            expect_refusal(
                InvalidInputError,
                partial(primitives.load_public_key, Algorithm.EC_P256, offered),
            )
        tally.refuse(
            test,
            "JOSE",
            InvalidInputError,
            partial(primitives.load_private_key, Algorithm.EC_P256, keys),
        )


SYMMETRIC: Final[dict[str, Callable[[Group, Tally], None]]] = {
    "AeadTest": _run_aead,
    "HkdfTest": _run_hkdf,
    "JsonWebCrypto": _run_jose,
    "JsonWebEncryption": _run_jose,
    "JsonWebKey": _run_jose,
    "JsonWebSignature": _run_jose,
    "KeywrapTest": _run_key_wrap,
    "MacTest": _run_mac,
    "PbkdfTest": _run_pbkdf2,
}
"""How groups are run, by their type."""
