# SPDX-License-Identifier: MIT
"""Known answers of post-quantum algorithms and composites, from their sources."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hsm_core._internal.crypto.der import (
    expanded_key_info,
    private_key_info,
    seed_key_info,
    subject_public_key_info,
)
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family
from tests.vectors.records import Answers
from tests.vectors.wycheproof import Test, read_groups

SLH_DSA = [a for a, row in ALGORITHMS.items() if row.family is Family.SLH_DSA]
"""The parameter sets, in the order of the shipped signatures."""

_MESSAGE = b"A message for the self-tests of SLH-DSA."
_CONTEXT = b"FerroHSM"


def collect_quantum_safe(folder: Callable[[str], Path]) -> Answers:
    """Return the known answers of all; signatures of SLH-DSA are made elsewhere."""
    wycheproof, composite = folder("wycheproof"), folder("composite")
    kems, signatures = (
        json.loads(
            (composite / f"composite-{name}_testvectors.json").read_text("utf-8")
        )
        for name in ("kem", "sigs")
    )
    collectors: dict[Family, Callable[[Algorithm], dict[str, str]]] = {
        Family.ML_KEM: lambda algorithm: _ml_kem(algorithm, wycheproof),
        Family.ML_DSA: lambda algorithm: _ml_dsa(algorithm, wycheproof),
        Family.COMPOSITE_KEM: lambda algorithm: _composite_kem(algorithm, kems),
        Family.COMPOSITE_SIGNATURE: lambda algorithm: _composite_signature(
            algorithm, signatures
        ),
    }
    answers = {
        algorithm.value: collectors[row.family](algorithm)
        for algorithm, row in ALGORITHMS.items()
        if row.family in collectors
    }
    keys = read_groups(folder("acvp") / "SLH-DSA-keyGen-FIPS205.json.gz")
    return answers | {a.value: _slh_dsa(a, keys) for a in SLH_DSA}


def openssl_signature(openssl: str, answer: dict[str, str]) -> bytes:
    """Return the deterministic signature that the program makes of an SLH-DSA case."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "key").write_bytes(bytes.fromhex(answer["key"]))
        (folder / "message").write_bytes(bytes.fromhex(answer["message"]))
        subprocess.run(
            [
                *(openssl, "pkeyutl", "-sign", "-rawin", "-keyform", "DER"),
                *("-inkey", folder / "key", "-in", folder / "message"),
                *("-out", folder / "signature", "-pkeyopt", "deterministic:1"),
                *("-pkeyopt", f"hexcontext-string:{answer['context']}"),
            ],
            check=True,
            timeout=60,
        )
        return (folder / "signature").read_bytes()


def _ml_kem(algorithm: Algorithm, wycheproof: Path) -> dict[str, str]:
    name = f"mlkem_{algorithm.value[7:]}_test"
    groups = read_groups(wycheproof / f"{name}.json.gz")
    rejected, valid = groups[0]["tests"][0], groups[1]["tests"][0]
    public_key = subject_public_key_info(algorithm, bytes.fromhex(valid["ek"]))
    answer = {
        "source": (
            f"C2SP/wycheproof, {name}, tcId {valid['tcId']}; implicit rejection: "
            f"tcId {rejected['tcId']} ({groups[0]['source']['name']})"
        ),
        "key": _of_seed(algorithm, valid["seed"]),
        "public_key": public_key.hex(),
        "ciphertext": valid["c"],
        "shared_secret": valid["K"],
        "rejecting_key": _of_seed(algorithm, rejected["seed"]),
        "rejected_ciphertext": rejected["c"],
        "rejected_secret": rejected["K"],
    }
    if algorithm is Algorithm.ML_KEM_512:
        _add_expanded(answer, wycheproof, valid)
    return answer


def _add_expanded(answer: dict[str, str], wycheproof: Path, valid: Test) -> None:
    """Add the expanded form of the key, for a provider that takes no seeds."""
    name = "mlkem_512_keygen_seed_test"
    test = next(
        t
        for g in read_groups(wycheproof / f"{name}.json.gz")
        for t in g["tests"]
        if t["seed"] == valid["seed"]
    )
    expanded = expanded_key_info(Algorithm.ML_KEM_512, bytes.fromhex(test["dk"]))
    answer["source"] += f"; expanded key: {name}, tcId {test['tcId']}"
    answer["expanded_key"] = expanded.hex()


def _ml_dsa(algorithm: Algorithm, wycheproof: Path) -> dict[str, str]:
    name = f"mldsa_{algorithm.value[7:]}_sign_seed_test"
    group = read_groups(wycheproof / f"{name}.json.gz")[0]
    test = next(t for t in group["tests"] if t.get("ctx"))
    public_key = subject_public_key_info(algorithm, bytes.fromhex(group["publicKey"]))
    return {
        "source": f"C2SP/wycheproof, {name}, tcId {test['tcId']}",
        "key": _of_seed(algorithm, group["privateSeed"]),
        "public_key": public_key.hex(),
        "message": test["msg"],
        "context": test["ctx"],
        "mu": test["mu"],
        "signature": test["sig"],
    }


def _slh_dsa(algorithm: Algorithm, groups: Iterable[dict[str, Any]]) -> dict[str, str]:
    group = next(g for g in groups if g["parameterSet"] == algorithm.value)
    test = group["tests"][0]
    private, public = (bytes.fromhex(test["expected"][name]) for name in ("sk", "pk"))
    return {
        "source": (
            f"Key: NIST ACVP, SLH-DSA-keyGen-FIPS205, tcId {test['tcId']}; no source "
            "has a signature with context: made by OpenSSL, deterministically, and "
            "verified by a second implementation"
        ),
        "key": private_key_info(algorithm, private).hex(),
        "public_key": subject_public_key_info(algorithm, public).hex(),
        "message": _MESSAGE.hex(),
        "context": _CONTEXT.hex(),
    }


def _composite_kem(algorithm: Algorithm, vectors: dict[str, Any]) -> dict[str, str]:
    test = _find(algorithm, vectors)
    public_key = subject_public_key_info(algorithm, base64.b64decode(test["ek"]))
    return {
        "source": f"{ALGORITHMS[algorithm].draft}, test vector {test['tcId']}",
        "key": _hex(test["dk_pkcs8"]),
        "public_key": public_key.hex(),
        "ciphertext": _hex(test["c"]),
        "shared_secret": _hex(test["k"]),
    }


def _composite_signature(
    algorithm: Algorithm, vectors: dict[str, Any]
) -> dict[str, str]:
    test = _find(algorithm, vectors)
    public_key = subject_public_key_info(algorithm, base64.b64decode(test["pk"]))
    return {
        "source": (
            f"{ALGORITHMS[algorithm].draft}, test vector {test['tcId']}, sWithContext"
        ),
        "key": _hex(test["sk_pkcs8"]),
        "public_key": public_key.hex(),
        "message": _hex(vectors["m"]),
        "context": _hex(vectors["ctx"]),
        "signature": _hex(test["sWithContext"]),
    }


def _find(algorithm: Algorithm, vectors: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = next(
        test for test in vectors["tests"] if test["tcId"] == f"id-{algorithm}"
    )
    return found


def _of_seed(algorithm: Algorithm, seed: str) -> str:
    return seed_key_info(algorithm, bytes.fromhex(seed)).hex()


def _hex(base64_text: str) -> str:
    return base64.b64decode(base64_text).hex()
