# SPDX-License-Identifier: MIT
"""Reference pages that are written from the code, and compared with it here."""

from __future__ import annotations

import inspect
import pkgutil
from pathlib import Path

import pytest

import hsm_core
from hsm_cli.exit_codes import exit_code
from hsm_core import errors
from hsm_core._internal.crypto.ciphertexts import Header
from hsm_core.algorithms import Algorithm, spec
from hsm_core.errors import HSMError
from hsm_core.model import KeyId
from hsm_server.http.problems import status_of
from tests.tooling.ciphertext_vectors import vector

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def error_rows() -> list[str]:
    """Return the table of errors: code, class, status, exit code, meaning."""
    rows = []
    for code, cls in errors.error_classes().items():
        meaning = (inspect.getdoc(cls) or "").split("\n\n", maxsplit=1)[0]
        sentence = meaning.replace("\n", " ").replace("``", "`")
        rows.append(
            f"| `{code}` | `{cls.__name__}` | {status_of(cls)} "
            f"| {exit_code(cls.from_wire('', {})).value} | {sentence} |"
        )
    return sorted(rows)


def test_the_page_of_errors() -> None:
    """Every error stands there with its status, exit code and meaning."""
    page = (REFERENCE / "errors.md").read_text().splitlines()

    assert error_rows() == [line for line in page if line.startswith("| `")]


@pytest.mark.parametrize("cls", errors.error_classes().values(), ids=lambda c: c.code)
def test_no_error_falls_through(cls: type[HSMError]) -> None:
    """Every error but the root has a status other than 500."""
    assert (cls is HSMError) == (status_of(cls) == 500)


def test_every_public_module_has_a_page() -> None:
    """A module of the core without underscore is public, and has a page of its name."""
    modules = {
        module.name
        for module in pkgutil.iter_modules(hsm_core.__path__)
        if not module.name.startswith("_")
    }
    pages = {path.stem for path in (REFERENCE / "python").glob("*.md")}

    assert {*modules, "hsm_client", "hsm_core", "index"} == pages


def test_the_vector_of_ciphertexts() -> None:
    """The published envelope is what the code makes of the published inputs."""
    page = (REFERENCE / "formats-ciphertexts.md").read_text()

    made = vector()

    assert made in page
    header = Header(
        spec(Algorithm.AES_256_GCM).envelope_kind,
        KeyId("3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11"),
        7,
    )
    assert header.encode().hex() in made.replace("\n", "").replace(" ", "")
