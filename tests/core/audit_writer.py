"""
Writes a trail until it is done or killed; run by the crash tests as a process.

Arguments: path, sync mode, segment size, number of records, failpoint to die at (or
``-``), how often that must be reached, seed. Each acknowledged seq is a line of output.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from hsm_core._internal.lib.failpoints import install
from hsm_core.settings import AuditSync
from tests.core.audit_support import draft, open_log


def _die_at(name: str, hits: int) -> Callable[[str], None]:
    left = hits

    def handler(reached: str) -> None:
        nonlocal left
        if reached == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return handler


def main(arguments: list[str]) -> None:
    """Write, and say what was acknowledged."""
    path, sync, segment_bytes, count, point, hits, seed = arguments
    choice = random.Random(int(seed))
    with install(_die_at(point, int(hits))):
        log = open_log(
            Path(path), sync=AuditSync(sync), segment_bytes=int(segment_bytes)
        )
        seq, end = log.head().seq, log.head().seq + int(count)
        while seq < end:
            size = choice.randint(1, 4)
            drafts = [draft(seq + 1 + n) for n in range(size)]
            log.append(drafts, durable=choice.random() < 0.2).wait()
            seq += size
            os.write(1, b"%d\n" % seq)
        log.close()


if __name__ == "__main__":
    main(sys.argv[1:])
