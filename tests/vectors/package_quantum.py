# SPDX-License-Identifier: MIT
"""How the ML-KEM and ML-DSA tests of cryptography-vectors are asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from hsm_core import primitives
from hsm_core._internal.crypto.der import seed_key_info, subject_public_key_info
from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core.algorithms import Algorithm, spec
from tests.vectors.deterministic import sign_deterministic
from tests.vectors.key_forms import libcrypto
from tests.vectors.package import Block, field_bytes
from tests.vectors.records import read_records
from tests.vectors.tally import REJECTIONS, Tally
from tests.vectors.wycheproof_quantum import (
    compare_encapsulation,
    compare_key_generation,
    compare_secret,
)


def _run_ml_kem(path: str, tally: Tally, algorithm: Algorithm) -> int:
    def check(block: Block) -> None:
        seed = field_bytes(block, "d") + field_bytes(block, "z")
        compare_key_generation(
            algorithm, seed, field_bytes(block, "pk"), field_bytes(block, "sk")
        )
        for suffix in ("", "_n"):
            secret = field_bytes(block, f"ss{suffix}")
            compare_secret(algorithm, seed, field_bytes(block, f"ct{suffix}"), secret)

    count = 0
    for count, block in enumerate(read_records(path, "ss"), 1):
        test = {"tcId": count, "result": "valid"}
        tally.judge(algorithm, test, partial(check, block))
        given = field_bytes(block, "pk"), field_bytes(block, "msg")
        made = field_bytes(block, "ss"), field_bytes(block, "ct")
        compare_encapsulation(algorithm, tally, test, given, made)
    return 2 * count


def _run_ml_dsa(path: str, tally: Tally, algorithm: Algorithm) -> int:
    def check(block: Block, signature: bytes) -> None:
        seed, public = field_bytes(block, "xi"), field_bytes(block, "pk")
        compare_key_generation(algorithm, seed, public, field_bytes(block, "sk"))
        der = subject_public_key_info(algorithm, public)
        message, context = field_bytes(block, "msg"), field_bytes(block, "ctx")
        primitives.verify(algorithm, der, signature, message, context=context)

    count = 0
    for count, block in enumerate(read_records(path, "ctx"), 1):
        test = {"tcId": count, "result": "valid"}
        signature = field_bytes(block, "sm")[: spec(algorithm).signature_bytes]
        tally.judge(algorithm, test, partial(check, block, signature), REJECTIONS)
        seed = seed_key_info(algorithm, field_bytes(block, "xi"))
        handle = cast("Any", libcrypto().load(algorithm, seed))
        context = field_bytes(block, "ctx")
        parameters = signature_parameters(algorithm, context=context)
        made = sign_deterministic(handle, field_bytes(block, "msg"), parameters)
        tally.compare_inside(algorithm, test, made, signature)
    return count


QUANTUM_SAFE_FILES: Final[dict[str, Callable[[str, Tally], int]]] = {
    **{
        f"asymmetric/MLKEM/kat_MLKEM_{size}.rsp": partial(
            _run_ml_kem, algorithm=Algorithm(f"ML-KEM-{size}")
        )
        for size in (512, 768, 1024)
    },
    **{
        f"asymmetric/MLDSA/kat_MLDSA_{size}_det_pure.rsp": partial(
            _run_ml_dsa, algorithm=Algorithm(f"ML-DSA-{size}")
        )
        for size in (44, 65, 87)
    },
}
"""How each file is run, by its path in the package."""
