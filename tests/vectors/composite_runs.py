# SPDX-License-Identifier: MIT
"""How the vectors of the composite drafts are asked, for the published counts."""

from __future__ import annotations

import base64
import json
from functools import partial
from pathlib import Path
from typing import Any

from hsm_core import primitives
from hsm_core._internal.crypto.der import subject_public_key_info
from hsm_core.algorithms import Algorithm, parse_algorithm
from hsm_core.errors import (
    DecryptionError,
    SignatureMismatchError,
    UnknownAlgorithmError,
)
from tests.vectors.tally import Tally, expect_refusal


def run_composite(path: Path, tally: Tally) -> int:
    """Run every test of a file: a decapsulation each, or two signatures."""
    content = json.loads(path.read_text("utf-8"))
    for test in content["tests"]:
        name = test["tcId"].removeprefix("id-").removeprefix("alg-")
        stated = {"tcId": test["tcId"], "result": "valid"}
        try:
            algorithm = parse_algorithm(name)
        except UnknownAlgorithmError as error:
            if "this composite is not supported" in str(error):
                named = partial(parse_algorithm, name.lower())
                tally.refuse(stated, "composite", UnknownAlgorithmError, named)
            continue
        check = _check_secret if "c" in test else _check_signatures
        tally.judge(algorithm, stated, partial(check, algorithm, content, test))
    return len(content["tests"])


def _decoded(of: dict[str, Any], name: str) -> bytes:
    return base64.b64decode(of[name])


def _public_der(algorithm: Algorithm, test: dict[str, Any], name: str) -> bytes:
    """Return the public key; the draft's certificate of the test holds the same."""
    der = subject_public_key_info(algorithm, _decoded(test, name))
    assert der in _decoded(test, "x5c")
    return der


def _check_secret(
    algorithm: Algorithm, common: dict[str, Any], test: dict[str, Any]
) -> None:
    material = _decoded(test, "dk_pkcs8")
    assert _public_der(algorithm, test, "ek") == primitives.public_key(
        algorithm, material
    )
    made = primitives.decapsulate(algorithm, material, _decoded(test, "c"))
    if made != _decoded(test, "k"):
        raise DecryptionError


def _check_signatures(
    algorithm: Algorithm, common: dict[str, Any], test: dict[str, Any]
) -> None:
    der = _public_der(algorithm, test, "pk")
    assert der == primitives.public_key(algorithm, _decoded(test, "sk_pkcs8"))
    verify = partial(primitives.verify, algorithm, der)
    message, context = _decoded(common, "m"), _decoded(common, "ctx")
    plain, bound = _decoded(test, "s"), _decoded(test, "sWithContext")
    verify(plain, message)
    verify(bound, message, context=context)
    for signature, wrong in ((plain, context), (bound, b"")):
        refused = partial(verify, signature, message, context=wrong)
        expect_refusal(SignatureMismatchError, refused)
