# SPDX-License-Identifier: MIT
"""
Every published set of vectors, file by file.

A file is run once in a process. Run as a program, this runs all of them, writes their
counts beside itself and the tables of the reference pages from those::

    python -m tests.vectors.sets
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from hsm_core.errors import AlgorithmUnavailableError
from tests.support import require_service, vectors_folder
from tests.vectors.acvp_runs import run_acvp, run_cctv
from tests.vectors.composite_runs import run_composite
from tests.vectors.package_asymmetric import ASYMMETRIC_FILES
from tests.vectors.package_quantum import QUANTUM_SAFE_FILES
from tests.vectors.package_rsa import RSA_FILES
from tests.vectors.package_symmetric import SYMMETRIC_FILES
from tests.vectors.pages import write_pages
from tests.vectors.tally import Counts, Tally
from tests.vectors.wycheproof_runs import run_wycheproof

COUNTS: Final = Path(__file__).with_name("counts.json")
"""What the last run of this program counted; a set's name may end in a version."""

PACKAGE: Final = f"cryptography-vectors {version('cryptography-vectors')}"
"""The set of the installed package, whose version decides what is in it."""

PACKAGE_FILES: Final = {
    **SYMMETRIC_FILES,
    **ASYMMETRIC_FILES,
    **QUANTUM_SAFE_FILES,
    **RSA_FILES,
}

_FOLDERS: Final[Mapping[str, tuple[str, Callable[[Path, Tally], int]]]] = {
    "wycheproof": ("*.json.gz", run_wycheproof),
    "wycheproof-secp256k1": ("*.json.gz", run_wycheproof),
    "acvp": ("*.json.gz", run_acvp),
    "cctv": ("*.txt.gz", run_cctv),
    "composite": ("*.json", run_composite),
}


def file_names() -> list[tuple[str, str]]:
    """Return set and name of every file that is there."""
    return [
        (name, path.name)
        for name, (pattern, _) in _FOLDERS.items()
        for path in sorted(vectors_folder(name).glob(pattern))
    ] + [(PACKAGE, path) for path in PACKAGE_FILES]


@cache
def run(set_name: str, file: str) -> Tally:
    """
    Run every test of a file, or skip where an algorithm of it has no provider.

    Args:
        set_name: Name of the set; of a package, whatever version is installed.

        file: Name of the file.

    Raises:
        AssertionError: A test went uncounted.
    """
    tally = Tally()
    try:
        if set_name not in _FOLDERS:
            tests = PACKAGE_FILES[file](file, tally)
        else:
            tests = _FOLDERS[set_name][1](vectors_folder(set_name) / file, tally)
    except AlgorithmUnavailableError as error:
        require_service(f"A provider of {error.facts['algorithm']}", False)
        raise
    counted = tally.agreed.total() + tally.either.total() + tally.refused.total()
    assert tests == counted + len(tally.wrong), f"{file}: {tests} tests, not {counted}"
    return tally


def published() -> dict[str, dict[str, Counts]]:
    """Return the published counts, by set and file."""
    counts: dict[str, dict[str, Counts]] = json.loads(COUNTS.read_text("utf-8"))
    return counts


if __name__ == "__main__":
    made: dict[str, dict[str, Counts]] = {}
    for set_, file_ in file_names():
        made.setdefault(set_, {})[file_] = run(set_, file_).counts()
    COUNTS.write_text(json.dumps(made, indent=1) + "\n", "utf-8")
    write_pages(made)
