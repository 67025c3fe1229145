# SPDX-License-Identifier: MIT
"""
Make ``known_answers.json`` of hsm-core from the public sources of its values.

Run from the top of the source tree, with ``FERROHSM_VECTORS`` set::

    python -m tests.vectors.known_answers
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cryptography_vectors
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.support import REPOSITORY, vectors_folder
from tests.vectors.wycheproof import read_groups

__all__ = ["SHIPPED", "collect", "render"]

SHIPPED = (
    REPOSITORY / "packages/hsm-core/src/hsm_core/_internal/crypto/known_answers.json"
)
"""The file that the self-tests read."""

_EXPONENT = 65537


def collect(wycheproof: Path) -> dict[str, dict[str, str]]:
    """Return every known answer by algorithm; bytes are written as hex."""
    answers: dict[str, dict[str, str]] = {"AES-256-GCM": _aes()}
    for bits in (2048, 3072, 4096):
        answers[f"RSA-{bits}"] = _rsa(bits, wycheproof)
    answers["EC-P256"] = _ecdsa("P-256", "SHA-256", ec.SECP256R1())
    answers["EC-P384"] = _ecdsa("P-384", "SHA-384", ec.SECP384R1())
    answers["EC-P521"] = _ecdsa("P-521", "SHA-512", ec.SECP521R1())
    answers["Ed25519"] = _ed25519()
    answers["HMAC-SHA-256"] = _hmac(wycheproof)
    return answers


def render(answers: dict[str, dict[str, str]]) -> str:
    """Return the text of the shipped file."""
    return json.dumps(answers, indent=1) + "\n"


def _records(path: str, last: str) -> Iterator[dict[str, str]]:
    """Return the records of a NIST response file, each ending with the name *last*."""
    record: dict[str, str] = {}
    with cryptography_vectors.open_vector_file(path, "r") as lines:
        for line in map(str.strip, lines):
            name, equals, value = line.strip("[]").partition(" =")
            if equals:
                record[name] = value.strip()
            elif line.startswith("["):
                record["section"] = name
            if name == last:
                yield dict(record)


def _aes() -> dict[str, str]:
    found = next(
        r
        for r in _records("ciphers/AES/GCM/gcmEncryptExtIV256.rsp", "Tag")
        if (r["IVlen"], r["PTlen"], r["AADlen"], r["Taglen"])
        == ("96", "408", "384", "128")
    )
    return {
        "source": "NIST CAVS 14.0, gcmEncryptExtIV256.rsp, PTlen 408, AADlen 384, 0",
        "key": found["Key"],
        "nonce": found["IV"],
        "plaintext": found["PT"],
        "aad": found["AAD"],
        "ciphertext": found["CT"] + found["Tag"],
    }


def _rsa(bits: int, wycheproof: Path) -> dict[str, str]:
    pkcs1 = _signature_check("SigVer15_186-3.rsp", bits)
    pss = _signature_check("SigVerPSS_186-3.rsp", bits)
    name = "rsa_oaep_misc_test"
    group = next(
        g
        for g in read_groups(wycheproof / f"{name}.json.gz")
        if (g["keySize"], g["sha"], g["mgfSha"]) == (bits, "SHA-256", "SHA-256")
    )
    test = group["tests"][1]
    return {
        "source": (
            "PKCS#1 v1.5: NIST CAVS 11.0, SigVer15_186-3.rsp; PSS: the same, "
            f"SigVerPSS_186-3.rsp, both first valid SHA-256 case of {bits} bits with "
            f"e = 65537; OAEP: C2SP/wycheproof, {name}, tcId {test['tcId']}"
        ),
        "key": _pkcs8(_rsa_key(pkcs1)),
        "message": pkcs1["Msg"],
        "signature": pkcs1["S"].lower(),
        "pss_public_key": _spki(_rsa_key(pss).public_key()),
        "pss_message": pss["Msg"],
        "pss_signature": pss["S"].lower(),
        "oaep_key": group["privateKeyPkcs8"],
        "oaep_ciphertext": test["ct"],
        "oaep_plaintext": test["msg"],
    }


def _signature_check(name: str, bits: int) -> dict[str, str]:
    return next(
        r
        for r in _records(f"asymmetric/RSA/FIPS_186-2/{name}", "Result")
        if r["mod"] == str(bits)
        and r["SHAAlg"] == "SHA256"
        and int(r["e"], 16) == _EXPONENT
        and r["Result"] == "P"
    )


def _rsa_key(record: dict[str, str]) -> rsa.RSAPrivateKey:
    p, q, n, d = (int(record[name], 16) for name in ("p", "q", "n", "d"))
    return rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=rsa.rsa_crt_dmp1(d, p),
        dmq1=rsa.rsa_crt_dmq1(d, q),
        iqmp=rsa.rsa_crt_iqmp(p, q),
        public_numbers=rsa.RSAPublicNumbers(_EXPONENT, n),
    ).private_key()


def _ecdsa(curve: str, digest: str, parameters: ec.EllipticCurve) -> dict[str, str]:
    found = next(
        r
        for r in _records("asymmetric/ECDSA/FIPS_186-3/SigGen.txt", "S")
        if r["section"] == f"{curve},{digest}"
    )
    key = ec.derive_private_key(int(found["d"], 16), parameters)
    return {
        "source": f"NIST CAVS 11.2, FIPS 186-3 SigGen.txt, [{curve},{digest}], first",
        "key": _pkcs8(key),
        "message": found["Msg"],
        "signature": encode_dss_signature(
            int(found["R"], 16), int(found["S"], 16)
        ).hex(),
    }


def _ed25519() -> dict[str, str]:
    with cryptography_vectors.open_vector_file(
        "asymmetric/Ed25519/sign.input", "r"
    ) as lines:
        secret, _, message, signed = list(lines)[2].split(":")[:4]
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret[:64]))
    return {
        "source": "RFC 8032, section 7.1, TEST 3 (sign.input, line 3)",
        "key": _pkcs8(key),
        "message": message,
        "signature": signed[:128],
    }


def _hmac(wycheproof: Path) -> dict[str, str]:
    name = "hmac_sha256_test"
    test = next(
        t
        for g in read_groups(wycheproof / f"{name}.json.gz")
        if (g["keySize"], g["tagSize"]) == (256, 256)
        for t in g["tests"]
        if t["result"] == "valid" and len(t["msg"]) == 64
    )
    return {
        "source": f"C2SP/wycheproof, {name}, tcId {test['tcId']}",
        "key": test["key"],
        "message": test["msg"],
        "mac": test["tag"],
    }


def _pkcs8(key: Any) -> str:
    encoded: bytes = key.private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    return encoded.hex()


def _spki(key: rsa.RSAPublicKey) -> str:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()


if __name__ == "__main__":
    SHIPPED.write_text(render(collect(vectors_folder("wycheproof"))), "utf-8")
