# SPDX-License-Identifier: MIT
"""
Honest histories of a trail: crashes, prunes, heals and clock steps, and no alarm.

Usage: ``python -m tests.faults.histories [--count N]``.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.core.audit_histories import honest_histories

__all__ = ["main"]


def main() -> int:
    """Live through as many histories as the command line says, and count them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    sys.stdout.write(f"seeds from {given.seed}\n")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ferrohsm-histories-") as folder:
        count = honest_histories(Path(folder), given.count, first_seed=given.seed)
    sys.stdout.write(
        f"[{time.monotonic() - started:6.1f} s] {count} passed, 0 failed\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
