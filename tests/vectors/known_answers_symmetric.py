# SPDX-License-Identifier: MIT
"""Known answers of AEAD, MAC, key wrap and key derivation, from their sources."""

from __future__ import annotations

from pathlib import Path

from tests.vectors.records import Answers, read_records
from tests.vectors.wycheproof import Test, read_groups


def collect_symmetric(wycheproof: Path) -> Answers:
    """Return the known answers of every algorithm with symmetric keys."""
    answers = {f"AES-{bits}-GCM": _aes_gcm(bits) for bits in (256, 128)}
    answers["ChaCha20-Poly1305"] = _chacha20()
    for bits in (256, 128):
        answers[f"AES-{bits}"] = _aes(bits)
    for bits in (256, 384, 512):
        answers[f"HMAC-SHA-{bits}"] = _hmac(bits, wycheproof)
    for bits in (256, 128):
        answers[f"AES-{bits}-KW"] = _key_wrap(bits, wycheproof)
    for bits in (256, 384, 512):
        answers[f"HKDF-SHA-{bits}"] = _hkdf(bits, wycheproof)
    return answers


def _aes_gcm(bits: int) -> dict[str, str]:
    name = f"gcmEncryptExtIV{bits}.rsp"
    found = next(
        r
        for r in read_records(f"ciphers/AES/GCM/{name}", "Tag")
        if (r["IVlen"], r["PTlen"], r["AADlen"], r["Taglen"])
        == ("96", "408", "384", "128")
    )
    return {
        "source": f"NIST CAVS 14.0, {name}, PTlen 408, AADlen 384, 0",
        "key": found["Key"],
        "nonce": found["IV"],
        "plaintext": found["PT"],
        "aad": found["AAD"],
        "ciphertext": found["CT"] + found["Tag"],
    }


def _aes(bits: int) -> dict[str, str]:
    """Return answers of CBC, CTR and GCM, each with a key of its own."""
    cbc_name, ctr_name = f"CBCMMT{bits}.rsp", f"aes-{bits}-ctr.txt"
    cbc = _third(f"ciphers/AES/CBC/{cbc_name}")
    ctr = _third(f"ciphers/AES/CTR/{ctr_name}")
    gcm = _aes_gcm(bits)
    return {
        "source": (
            f"NIST CAVS 11.1, {cbc_name}, ENCRYPT, COUNT 2; RFC 3686, section 6 "
            f"({ctr_name}, COUNT 2); {gcm['source']}"
        ),
        **{f"cbc_{name}": value for name, value in cbc.items()},
        **{f"ctr_{name}": value for name, value in ctr.items()},
        "gcm_key": gcm["key"],
        "gcm_iv": gcm["nonce"],
        "gcm_plaintext": gcm["plaintext"],
        "gcm_aad": gcm["aad"],
        "gcm_ciphertext": gcm["ciphertext"],
    }


def _third(path: str) -> dict[str, str]:
    """Return the third case of a file, of more than one block."""
    found = next(r for r in read_records(path, "CIPHERTEXT") if r["COUNT"] == "2")
    names = ("key", "iv", "plaintext", "ciphertext")
    return {name: found[name.upper()].lower() for name in names}


def _chacha20() -> dict[str, str]:
    name = "ciphers/ChaCha20Poly1305/boringssl.txt"
    found = next(read_records(name, "TAG"))
    return {
        "source": "RFC 8439, section 2.8.2 (boringssl.txt, COUNT 1)",
        "key": found["KEY"],
        "nonce": found["NONCE"],
        "plaintext": found["IN"].strip('"').encode().hex(),
        "aad": found["AD"],
        "ciphertext": found["CT"] + found["TAG"],
    }


def _hmac(bits: int, wycheproof: Path) -> dict[str, str]:
    name = f"hmac_sha{bits}_test"
    test = next(
        t
        for g in read_groups(wycheproof / f"{name}.json.gz")
        if (g["keySize"], g["tagSize"]) == (bits, bits)
        for t in g["tests"]
        if t["result"] == "valid" and len(t["msg"]) == 64
    )
    return {
        "source": f"C2SP/wycheproof, {name}, tcId {test['tcId']}",
        "key": test["key"],
        "message": test["msg"],
        "mac": test["tag"],
    }


def _key_wrap(bits: int, wycheproof: Path) -> dict[str, str]:
    plain, padded = (
        next(
            t
            for g in read_groups(wycheproof / f"{name}.json.gz")
            if g["keySize"] == bits
            for t in g["tests"]
            if _is_of(t, is_padded=name == "aes_kwp_test")
        )
        for name in ("aes_wrap_test", "aes_kwp_test")
    )
    return {
        "source": (
            f"C2SP/wycheproof, aes_wrap_test, tcId {plain['tcId']}; aes_kwp_test, "
            f"tcId {padded['tcId']}"
        ),
        "kw_key": plain["key"],
        "kw_data": plain["msg"],
        "kw_wrapped": plain["ct"],
        "kwp_key": padded["key"],
        "kwp_data": padded["msg"],
        "kwp_wrapped": padded["ct"],
    }


def _is_of(test: Test, *, is_padded: bool) -> bool:
    """Return whether a case is valid, longer than a block, and padded or not."""
    size = len(test["msg"]) // 2
    return test["result"] == "valid" and size > 8 and bool(size % 8) is is_padded


def _hkdf(bits: int, wycheproof: Path) -> dict[str, str]:
    name = f"hkdf_sha{bits}_test"
    test = next(
        t
        for g in read_groups(wycheproof / f"{name}.json.gz")
        if g["keySize"] == bits
        for t in g["tests"]
        if t["result"] == "valid" and t["salt"] and t["info"] and t["size"] > bits // 8
    )
    return {
        "source": f"C2SP/wycheproof, {name}, tcId {test['tcId']}",
        "key": test["ikm"],
        "salt": test["salt"],
        "info": test["info"],
        "derived_key": test["okm"],
    }
