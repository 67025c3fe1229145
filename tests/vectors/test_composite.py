# SPDX-License-Identifier: MIT
"""The vectors of the composite drafts, through `hsm_core.primitives`."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hsm_core import primitives
from hsm_core.algorithms import ALGORITHMS, Algorithm, parse_algorithm, spec
from hsm_core.errors import (
    SignatureMismatchError,
    UnknownAlgorithmError,
)

SHIPPED = [algorithm for algorithm, row in ALGORITHMS.items() if row.is_hybrid]
KEMS = [algorithm for algorithm in SHIPPED if spec(algorithm).is_kem]
SIGNATURES = [algorithm for algorithm in SHIPPED if spec(algorithm).is_signature]
COMPONENTS = {
    "id-alg-ml-kem-768": Algorithm.ML_KEM_768,
    "id-alg-ml-kem-1024": Algorithm.ML_KEM_1024,
    "id-ML-DSA-44": Algorithm.ML_DSA_44,
    "id-ML-DSA-65": Algorithm.ML_DSA_65,
    "id-ML-DSA-87": Algorithm.ML_DSA_87,
}
"""Algorithms that stand alone in the files, beside the composites."""

Vectors = Callable[[str], Path]
Case = dict[str, bytes]


def read(vectors: Vectors, name: str) -> tuple[Case, dict[str, Case]]:
    """Return what a file's cases have in common, and the cases by name."""
    path = vectors("composite") / f"composite-{name}_testvectors.json"
    content = json.loads(path.read_text("utf-8"))
    tests = content.pop("tests")
    return decoded(content), {test["tcId"]: decoded(test) for test in tests}


def decoded(fields: dict[str, str]) -> Case:
    """Return the fields in base64 as bytes."""
    return {
        name: base64.b64decode(value, validate=True)
        for name, value in fields.items()
        if name != "tcId"
    }


def identifiers(algorithms: list[Algorithm]) -> set[str]:
    """Return the names that the drafts give to composites."""
    return {f"id-{algorithm}" for algorithm in algorithms}


@pytest.mark.parametrize("algorithm", KEMS)
def test_kem(vectors: Vectors, algorithm: Algorithm) -> None:
    """Keys are read and written as the draft writes them, and the secret is found."""
    case = read(vectors, "kem")[1][f"id-{algorithm}"]

    private = primitives.load_private_key(algorithm, case["dk_pkcs8"])
    public_der = private.public_der()
    made = primitives.encapsulate(algorithm, public_der)

    assert case["dk_pkcs8"].endswith(case["dk"])
    assert public_der.endswith(b"\0" + case["ek"])
    assert public_der in case["x5c"]
    assert primitives.decapsulate(algorithm, private, case["c"]) == case["k"]
    assert (
        primitives.decapsulate(algorithm, private, made.ciphertext)
        == made.shared_secret
    )


@pytest.mark.parametrize("algorithm", SIGNATURES)
def test_signature(vectors: Vectors, algorithm: Algorithm) -> None:
    """Keys are read and written as the draft writes them; both signatures verify."""
    common, cases = read(vectors, "sigs")
    case, message, context = cases[f"id-{algorithm}"], common["m"], common["ctx"]

    private = primitives.load_private_key(algorithm, case["sk_pkcs8"])
    public_der = private.public_der()

    assert case["sk_pkcs8"].endswith(case["sk"])
    assert public_der.endswith(b"\0" + case["pk"])
    assert public_der in case["x5c"]
    primitives.verify(algorithm, public_der, case["s"], message)
    primitives.verify(
        algorithm, public_der, case["sWithContext"], message, context=context
    )
    made = primitives.sign(algorithm, private, message, context=context)
    primitives.verify(algorithm, public_der, made, message, context=context)
    for signature, wrong in ((case["s"], context), (case["sWithContext"], b"")):
        with pytest.raises(SignatureMismatchError):
            primitives.verify(algorithm, public_der, signature, message, context=wrong)


@pytest.mark.parametrize("algorithm", SIGNATURES)
def test_certificate(vectors: Vectors, algorithm: Algorithm) -> None:
    """The draft's certificates are signed by their own composite keys."""
    case = read(vectors, "sigs")[1][f"id-{algorithm}"]
    certificate = x509.load_der_x509_certificate(case["x5c"])
    private = primitives.load_private_key(algorithm, case["sk_pkcs8"])

    assert certificate.signature_algorithm_oid.dotted_string == spec(algorithm).oid
    primitives.verify(
        algorithm,
        private.public_der(),
        certificate.signature,
        certificate.tbs_certificate_bytes,
    )
    assert private.public_der() in certificate.public_bytes(Encoding.DER)


def test_components(vectors: Vectors) -> None:
    """The cases of ML-KEM and ML-DSA alone are agreed with, too."""
    common, cases = read(vectors, "sigs")
    cases |= read(vectors, "kem")[1]

    for name, algorithm in COMPONENTS.items():
        case = cases[name]
        if spec(algorithm).is_kem:
            found = primitives.decapsulate(algorithm, case["dk_pkcs8"], case["c"])
            assert found == case["k"]
        else:
            public = primitives.public_key(algorithm, case["sk_pkcs8"])
            message, context = common["m"], common["ctx"]
            primitives.verify(algorithm, public, case["s"], message)
            primitives.verify(
                algorithm, public, case["sWithContext"], message, context=context
            )


@pytest.mark.parametrize(("name", "count"), [("kem", 9), ("sigs", 14)])
def test_others_are_refused_by_name(vectors: Vectors, name: str, count: int) -> None:
    """Every other composite of the files is known to be one, and not offered."""
    cases = set(read(vectors, name)[1])
    others = cases - identifiers(SHIPPED) - set(COMPONENTS)

    assert len(others) == count
    for other in others:
        for spelling in (other.removeprefix("id-"), other.removeprefix("id-").lower()):
            with pytest.raises(UnknownAlgorithmError, match="not supported") as caught:
                parse_algorithm(spelling)
            assert caught.value.facts["field"] == "algorithm"


def test_all_are_accounted_for(vectors: Vectors) -> None:
    """The files have 35 cases: 7 shipped, 5 of components, 23 refused."""
    cases = set(read(vectors, "kem")[1]) | set(read(vectors, "sigs")[1])

    assert len(cases) == 35
    assert identifiers(SHIPPED) | set(COMPONENTS) <= cases
