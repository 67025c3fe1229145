# SPDX-License-Identifier: MIT
"""
Honest histories: crashes, prunes, heals and clock steps of a trail, and no alarm.

Then those of approvals and purges, of which there are a tenth as many in files, and in
SQLite.

Usage: ``python -m tests.faults.histories [--count N]``.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.core.audit_histories import honest_histories
from tests.core.dual_disk import KINDS
from tests.core.governance_histories import honest_governance


def main() -> int:
    """Live through as many histories as the command line says, and count them."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    sys.stdout.write(f"seeds from {given.seed}\n")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ferrohsm-histories-") as folder:
        count = honest_histories(Path(folder), given.count, first_seed=given.seed)
        _say(started, f"{count} passed, 0 failed")
        few = -(-given.count // 10)
        told = honest_governance(Path(folder), few, first_seed=given.seed)
        _say(started, f"{len(KINDS) * few} passed, 0 failed: {told}")
    return 0


def _say(started: float, text: str) -> None:
    sys.stdout.write(f"[{time.monotonic() - started:6.1f} s] {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
