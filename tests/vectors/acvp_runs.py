# SPDX-License-Identifier: MIT
"""How NIST's ACVP tests, and CCTV's, are asked of `hsm_core.primitives`."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from hsm_core import primitives
from hsm_core._internal.crypto.der import (
    expanded_key_info,
    private_key_info,
    read_public_key_info,
    subject_public_key_info,
)
from hsm_core.algorithms import Algorithm, HashAlgorithm
from hsm_core.errors import InvalidInputError, UnsupportedOperationError
from tests.vectors.tally import LOADING, Tally, Test
from tests.vectors.wycheproof import Group, octets, read_groups
from tests.vectors.wycheproof_quantum import (
    compare_encapsulation,
    compare_key_generation,
)


def run_acvp(path: Path, tally: Tally) -> int:
    """Run every test of a file, prompt and expected results merged."""
    groups = read_groups(path)
    run = _RUNS[path.name.removesuffix(".json.gz")]
    for group in groups:
        run(Algorithm(group["parameterSet"]), group, tally)
    return sum(len(group["tests"]) for group in groups)


def run_cctv(path: Path, tally: Tally) -> int:
    """Run a file of encapsulation keys, each with a coefficient that is too large."""
    algorithm = Algorithm(path.name.split(".")[0])
    with gzip.open(path, "rt", encoding="ascii") as file:
        keys = file.read().split()
    for number, key in enumerate(keys):
        der = subject_public_key_info(algorithm, bytes.fromhex(key))
        test = {"tcId": number, "result": "invalid"}
        load = partial(primitives.load_public_key, algorithm, der)
        tally.judge(algorithm, test, load, LOADING)
    return len(keys)


def _stated(test: dict[str, Any]) -> Test:
    """Return a test with its result in Wycheproof's words."""
    passed = test["expected"].get("testPassed", True)
    return test | {"result": "valid" if passed else "invalid"}


def _run_kem_generation(algorithm: Algorithm, group: Group, tally: Tally) -> None:
    for test in group["tests"]:
        seed = octets(test, "d") + octets(test, "z")
        ek, dk = (octets(test["expected"], name) for name in ("ek", "dk"))
        attempt = partial(compare_key_generation, algorithm, seed, ek, dk)
        tally.judge(algorithm, _stated(test), attempt)


def _run_kem(algorithm: Algorithm, group: Group, tally: Tally) -> None:
    for test in group["tests"]:
        expected = test["expected"]
        if group["function"] == "encapsulation":
            given = octets(test, "ek"), octets(test, "m")
            made = octets(expected, "k"), octets(expected, "c")
            compare_encapsulation(algorithm, tally, test, given, made)
        elif group["function"] == "encapsulationKeyCheck":
            der = subject_public_key_info(algorithm, octets(test, "ek"))
            load = partial(primitives.load_public_key, algorithm, der)
            tally.judge(algorithm, _stated(test), load, LOADING)
        else:
            _refuse_expanded(algorithm, test, octets(test, "dk"), tally)


def _run_dsa_generation(algorithm: Algorithm, group: Group, tally: Tally) -> None:
    for test in group["tests"]:
        pk, sk = (octets(test["expected"], name) for name in ("pk", "sk"))
        attempt = partial(
            compare_key_generation, algorithm, octets(test, "seed"), pk, sk
        )
        tally.judge(algorithm, _stated(test), attempt)


def _run_signing(algorithm: Algorithm, group: Group, tally: Tally) -> None:
    for test in group["tests"]:
        _refuse_expanded(algorithm, test, octets(test, "sk"), tally)


def _run_verification(algorithm: Algorithm, group: Group, tally: Tally) -> None:
    for test in group["tests"]:
        raw, signature = octets(test, "pk"), octets(test, "signature")
        verify = partial(
            primitives.verify,
            algorithm,
            subject_public_key_info(algorithm, raw),
            signature,
        )
        message, context = octets(test, "message"), octets(test, "context")
        if group.get("preHash") == "preHash":
            digest = hashlib.sha512(message).digest()
            attempt = partial(
                verify, digest=digest, hash=HashAlgorithm.SHA_512, context=context
            )
            tally.refuse(test, "HashML-DSA", UnsupportedOperationError, attempt)
        elif group["signatureInterface"] == "external":
            attempt = partial(verify, message, context=context)
            tally.judge(algorithm, _stated(test), attempt)
        else:
            attempt = partial(verify, mu=octets(test, "mu") or _mu(raw, message))
            tally.judge(algorithm, _stated(test), attempt)


def _mu(raw_public: bytes, framed: bytes) -> bytes:
    """Return mu of a message in its frame (FIPS 204, algorithm 7, line 6)."""
    tr = hashlib.shake_256(raw_public).digest(64)
    return hashlib.shake_256(tr + framed).digest(64)


def _run_slh_generation(algorithm: Algorithm, group: Group, tally: Tally) -> None:
    def attempt(test: Test) -> None:
        sk, pk = (octets(test["expected"], name) for name in ("sk", "pk"))
        assert sk.startswith(
            octets(test, "skSeed") + octets(test, "skPrf") + octets(test, "pkSeed")
        )
        material = private_key_info(algorithm, sk)
        made = primitives.public_key(algorithm, material)
        assert pk == read_public_key_info(algorithm, made)

    for test in group["tests"]:
        tally.judge(algorithm, _stated(test), partial(attempt, test))


def _refuse_expanded(
    algorithm: Algorithm, test: Test, expanded: bytes, tally: Tally
) -> None:
    der = expanded_key_info(algorithm, expanded)
    load = partial(primitives.load_private_key, algorithm, der)
    tally.refuse(test, "expanded key", InvalidInputError, load)


_RUNS: Final[dict[str, Callable[[Algorithm, Group, Tally], None]]] = {
    "ML-DSA-keyGen-FIPS204": _run_dsa_generation,
    "ML-DSA-sigGen-FIPS204": _run_signing,
    "ML-DSA-sigVer-FIPS204": _run_verification,
    "ML-KEM-encapDecap-FIPS203": _run_kem,
    "ML-KEM-keyGen-FIPS203": _run_kem_generation,
    "SLH-DSA-keyGen-FIPS205": _run_slh_generation,
}
