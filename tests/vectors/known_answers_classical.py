# SPDX-License-Identifier: MIT
"""Known answers of RSA and of elliptic curves, from their sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cryptography_vectors
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.vectors.records import Answers, read_records
from tests.vectors.wycheproof import read_groups

_EXPONENT = 65537
_CURVES = (
    ("EC-P256", "P-256", "SHA-256", ec.SECP256R1()),
    ("EC-P384", "P-384", "SHA-384", ec.SECP384R1()),
    ("EC-P521", "P-521", "SHA-512", ec.SECP521R1()),
)
_K1_KEY = 0xF8B8AF8CE3C7CCA5E300D33939540C10D45CE001B8F252BFBC57BA0342904181
_K1_SIGNATURE = (
    0x7063AE83E7F62BBB171798131B4A0564B956930092B33B07B395615D9EC7E15C,
    0x58DFCC1E00A35E1572F366FFE34BA0FC47DB1E7189759B9FB233C5B05AB388EA,
)


def collect_classical(wycheproof: Path, secp256k1: Path) -> Answers:
    """Return the known answers of RSA, ECDSA, ECDH and EdDSA."""
    answers = {f"RSA-{bits}": _rsa(bits, wycheproof) for bits in (2048, 3072, 4096)}
    for algorithm, curve, digest, parameters in _CURVES:
        answers[algorithm] = _ecdsa(curve, digest, parameters)
        if algorithm != "EC-P521":
            _add_agreement(answers[algorithm], wycheproof, parameters)
    answers["EC-P521"] |= _p521_agreement(answers["EC-P521"]["source"])
    answers["EC-secp256k1"] = _secp256k1()
    _add_agreement(answers["EC-secp256k1"], secp256k1, ec.SECP256K1())
    answers["Ed25519"] = _ed25519()
    answers["Ed448"] = _ed448()
    answers["X25519"] = _x25519()
    return answers


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
        for r in read_records(f"asymmetric/RSA/FIPS_186-2/{name}", "Result")
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
        for r in read_records("asymmetric/ECDSA/FIPS_186-3/SigGen.txt", "S")
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


def _secp256k1() -> dict[str, str]:
    """Return a signature by RFC 6979, which has no vectors for this curve itself."""
    return {
        "source": (
            "RFC 6979 with SHA-256, s in its lower half, 'Alan Turing' "
            "(bitcointalk.org, topic 285142)"
        ),
        "key": _pkcs8(ec.derive_private_key(_K1_KEY, ec.SECP256K1())),
        "message": b"Alan Turing".hex(),
        "signature": encode_dss_signature(*_K1_SIGNATURE).hex(),
    }


def _add_agreement(
    answer: dict[str, str], wycheproof: Path, curve: ec.EllipticCurve
) -> None:
    """Add the first case of Wycheproof's ECDH to an answer of the curve."""
    name = f"ecdh_{curve.name}_test"
    test = read_groups(wycheproof / f"{name}.json.gz")[0]["tests"][0]
    key = ec.derive_private_key(int(test["private"], 16), curve)
    answer["source"] += f"; ECDH: C2SP/wycheproof, {name}, tcId {test['tcId']}"
    answer["agreement_key"] = _pkcs8(key)
    answer["peer_public_key"] = test["public"]
    answer["shared_secret"] = test["shared"]


def _p521_agreement(source: str) -> dict[str, str]:
    """Return an agreement on P-521 with the source of both."""
    name = "KASValidityTest_ECCStaticUnified_NOKC_ZZOnly_init.fax"
    found = next(
        r
        for r in read_records(f"asymmetric/ECDH/{name}", "Result")
        if r["section"] == "EE - SHA512" and r["Result"].startswith("P")
    )
    x, y = (int(found[f"QsCAVS{n}"], 16) for n in "xy")
    peer = ec.EllipticCurvePublicNumbers(x, y, ec.SECP521R1()).public_key()
    private = ec.derive_private_key(int(found["dsIUT"], 16), ec.SECP521R1())
    return {
        "source": f"{source}; ECDH: NIST CAVS 11.0, {name}, [EE - SHA512], first valid",
        "agreement_key": _pkcs8(private),
        "peer_public_key": _spki(peer),
        "shared_secret": found["Z"],
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


def _ed448() -> dict[str, str]:
    found = next(
        r
        for r in read_records("asymmetric/Ed448/rfc8032.txt", "SIGNATURE")
        if r["COUNT"] == "3"
    )
    key = ed448.Ed448PrivateKey.from_private_bytes(bytes.fromhex(found["SECRET"]))
    return {
        "source": "RFC 8032, section 7.4, 11 octets (rfc8032.txt, COUNT 3)",
        "key": _pkcs8(key),
        "message": found["MESSAGE"],
        "signature": found["SIGNATURE"],
    }


def _x25519() -> dict[str, str]:
    found = next(read_records("asymmetric/X25519/rfc7748.txt", "OUTPUT_U"))
    scalar, point = (bytes.fromhex(found[f"INPUT_{n}"]) for n in ("SCALAR", "U"))
    return {
        "source": "RFC 7748, section 5.2, first test vector of X25519",
        "agreement_key": _pkcs8(x25519.X25519PrivateKey.from_private_bytes(scalar)),
        "peer_public_key": _spki(x25519.X25519PublicKey.from_public_bytes(point)),
        "shared_secret": found["OUTPUT_U"],
    }


def _pkcs8(key: Any) -> str:
    encoded: bytes = key.private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    return encoded.hex()


def _spki(
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | x25519.X25519PublicKey,
) -> str:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()
