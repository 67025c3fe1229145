# SPDX-License-Identifier: MIT
"""
How the tests of each type of Wycheproof group are asked of `hsm_core.primitives`.

What can't be asked for is asked for all the same, as far as it can be written down, and
must be refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.vectors.tally import Tally
from tests.vectors.wycheproof import read_groups
from tests.vectors.wycheproof_asymmetric import ASYMMETRIC
from tests.vectors.wycheproof_quantum import QUANTUM_SAFE
from tests.vectors.wycheproof_symmetric import SYMMETRIC

_RUNS: Final = {**SYMMETRIC, **ASYMMETRIC, **QUANTUM_SAFE}


def run_wycheproof(path: Path, tally: Tally) -> int:
    """Run every test of a file, and return how many there are."""
    groups = read_groups(path)
    for group in groups:
        _RUNS[group["type"]](group, tally)
    return sum(len(group["tests"]) for group in groups)
