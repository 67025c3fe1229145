# SPDX-License-Identifier: MIT
"""
Sees whether tests notice faults: ``python -m tests.mutation AREA``.

Lists what no test runs, and the faults that no test has noticed.
"""

from __future__ import annotations

import argparse
import random
import sys
from typing import Final

from tests.mutation.areas import AREAS, ROOT
from tests.mutation.proof import faults_of, prove, unnoticed

_LEAST_SCORE: Final = 95.0
_REPORTS: Final = ROOT / ".nox" / "mutants"


def main() -> int:
    """Run; 1 if too many faults were not noticed."""
    parser = argparse.ArgumentParser("tests.mutation", description=__doc__)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=", ".join(AREAS))
    parser.add_argument("--sample", type=int, default=0, help="how many; 0 for all")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument(
        "--again", action="store_true", help="only what was not noticed the last time"
    )
    parser.add_argument("--module", default="", help="only where its path has this")
    options = parser.parse_args()
    unknown = set(options.areas) - AREAS.keys()
    if unknown:
        parser.error(f"There is no area {', '.join(sorted(unknown))}.")
    failed = False
    for name in options.areas or AREAS:
        area, report = AREAS[name], _REPORTS / f"{name}.json"
        faults = [f for f in faults_of(area, ROOT) if options.module in str(f[0])]
        if options.again:
            faults = unnoticed(report, faults, ROOT)
        elif 0 < options.sample < len(faults):
            # The same each time.
            faults = random.Random(options.seed).sample(faults, options.sample)
        failed |= prove(area, faults, root=ROOT, report=report) < _LEAST_SCORE
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
