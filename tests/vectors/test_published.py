# SPDX-License-Identifier: MIT
"""Published vectors agree with hsm-core, but for the refusals that are published."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from hsm_core import primitives
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family, spec
from tests.vectors.pages import PAGES, REFUSALS, rendered
from tests.vectors.sets import PACKAGE, file_names, published, run

FILES = [(name, file) for name, of_set in published().items() for file in of_set]


@pytest.mark.parametrize(("name", "file"), FILES)
def test_file_is_as_published(
    name: str, file: str, record_property: Callable[[str, object], None]
) -> None:
    """
    No test of a file disagrees, and as many are refused as the page says.

    Of a package only its published version has the published counts.
    """
    tally = run(name, file)
    record_property("vectors", f"{name}: {file}: {tally.counts()}")

    assert [] == tally.wrong
    if name == PACKAGE or name.split()[0] == name:
        assert published()[name][file] == tally.counts()


def test_every_file_is_published() -> None:
    """Each file that is there has published counts, and the other way round."""
    there = {(name.split()[0], file) for name, file in file_names()}

    assert there == {(name.split()[0], file) for name, file in FILES}


def test_page_is_from_the_counts() -> None:
    """The tables of the page are those that the counts make."""
    page = PAGES[0]

    assert rendered(page, published()) == page.read_text("utf-8")


def test_every_refusal_is_explained() -> None:
    """Each reason of a refusal is explained, and none that isn't one."""
    counts = [of_file for of_set in published().values() for of_file in of_set.values()]

    assert set(REFUSALS) == {reason for c in counts for reason in c["refused"]}


@pytest.mark.parametrize(
    "algorithm",
    [a for a, row in ALGORITHMS.items() if row.family is Family.COMPOSITE_SIGNATURE],
)
def test_composite_certificate(
    vectors: Callable[[str], Path], algorithm: Algorithm
) -> None:
    """The draft's certificates are signed by their own composite keys."""
    file = vectors("composite") / "composite-sigs_testvectors.json"
    tests = json.loads(file.read_text("utf-8"))["tests"]
    case = next(test for test in tests if test["tcId"] == f"id-{algorithm}")
    certificate = x509.load_der_x509_certificate(base64.b64decode(case["x5c"]))
    public = primitives.public_key(algorithm, base64.b64decode(case["sk_pkcs8"]))

    assert certificate.signature_algorithm_oid.dotted_string == spec(algorithm).oid
    primitives.verify(
        algorithm,
        public,
        certificate.signature,
        certificate.tbs_certificate_bytes,
    )
