# SPDX-License-Identifier: MIT
"""The known answers that the package ships are those of their sources."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from hsm_core._internal.crypto.der import read_private_form
from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.crypto.providers import default_providers
from hsm_core._internal.crypto.selftest.cases import known_answers
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family
from hsm_core.protocols import CryptoProvider
from tests.core.openssl_program import OpenSSL
from tests.support import require_program, require_service
from tests.vectors.known_answers import collect, render
from tests.vectors.known_answers_quantum import SLH_DSA, openssl_signature

PROMPT = [algorithm for algorithm in SLH_DSA if algorithm.endswith("f")]
"""The sets that sign in less than a tenth of a second."""

SIGNERS = ("libcrypto", "pqcrypto")


def shipped() -> str:
    """Return the file of the installed package."""
    package = files("hsm_core._internal.crypto.selftest")
    return package.joinpath("known_answers.json").read_text("utf-8")


def signer(name: str) -> CryptoProvider:
    """Return a provider of SLH-DSA, or skip the running test."""
    found = {p.name: p for p in default_providers()}[name]
    require_service(f"SLH-DSA by {name}", set(SLH_DSA) <= found.algorithms())
    return found


def test_made_from_sources(vectors: Callable[[str], Path]) -> None:
    """
    Collecting the answers from their sources again gives the shipped file.
    """
    assert render(collect(vectors)) == shipped()


def test_every_algorithm_has_one() -> None:
    """
    There is a known answer with a source for each algorithm of the table, in its order.
    """
    answers = json.loads(shipped())

    assert list(Algorithm) == list(answers)
    assert all(answer["source"] for answer in answers.values())


@pytest.mark.parametrize("algorithm", PROMPT)
def test_signatures_are_made_by_openssl(algorithm: Algorithm, tmp_path: Path) -> None:
    """
    OpenSSL's command line makes the shipped signature of SLH-DSA again, byte by byte.
    """
    OpenSSL(tmp_path)  # it must be new enough
    answer = json.loads(shipped())[algorithm]
    made = openssl_signature(require_program("openssl"), answer)

    assert known_answers(algorithm)["signature"] == made


@pytest.mark.parametrize("name", SIGNERS)
@pytest.mark.parametrize("algorithm", SLH_DSA)
def test_signatures_are_confirmed(algorithm: Algorithm, name: str) -> None:
    """
    Two implementations of SLH-DSA verify each shipped signature.
    """
    known = known_answers(algorithm)
    public = signer(name).load_public(algorithm, known["public_key"])
    parameters = signature_parameters(algorithm, context=known["context"])

    assert len(known["signature"]) == ALGORITHMS[algorithm].signature_bytes
    public.verify(known["message"], known["signature"], parameters)


@pytest.mark.parametrize(
    "algorithm", [a for a, row in ALGORITHMS.items() if row.family is Family.ML_KEM]
)
def test_rejected_secret_is_one(algorithm: Algorithm) -> None:
    """
    The known rejected secret is J(z ‖ c) of FIPS 203, algorithm 18, line 7.
    """
    known = known_answers(algorithm)
    z = read_private_form(algorithm, known["rejecting_key"]).seed[32:]
    expected = hashlib.shake_256(z + known["rejected_ciphertext"]).digest(32)

    assert expected == known["rejected_secret"]
