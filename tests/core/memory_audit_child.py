# SPDX-License-Identifier: MIT
"""
Audit logs whose memory is out while a record is appended.

Usage: ``python -m tests.core.memory_audit_child FOLDER NAME SYNC FIRST END``. Each
child N, from FIRST to before END, opens a log ``FOLDER/N/NAME`` and appends three
records. While it appends the second, 100 allocations fail, from the Nth on. It goes on
at once, and until the third is accepted. What was acknowledged is written to
``FOLDER/N/told``. Prints how each child ended: ``N STATUS``.
"""

from __future__ import annotations

import _testcapi  # type: ignore[import-not-found,unused-ignore]
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final

from hsm_core.errors import AuditUnavailableError
from hsm_core.settings import AuditSync
from tests.core.audit_support import draft, open_any
from tests.core.memory_child import end_of

_WIDTH: Final = 100


def _write(path: Path, sync: AuditSync, begin: int) -> None:
    log = open_any(path, sync=sync, timeout_seconds=600.0)
    number = 1
    with path.with_name("told").open("w", buffering=1) as told:
        while number <= 3:
            try:
                if number == 2:
                    _testcapi.set_nomemory(begin, begin + _WIDTH)
                try:
                    ticket = log.append([draft(number)])
                finally:
                    _testcapi.remove_mem_hooks()
                ticket.wait()
            except (AuditUnavailableError, MemoryError, SystemError):
                if number == 3:
                    time.sleep(0.01)
                    continue
            else:
                told.write(f"request-{number}\n")
            number += 1
    log.close()


def main(folder: str, name: str, sync: str, first: str, end: str) -> None:
    """Let one child after the other run out of memory."""
    # What is imported on demand is there before the children are forked.
    open_any(Path(folder) / name).close()
    for number in range(int(first), int(end)):
        place = Path(folder) / str(number)
        place.mkdir(mode=0o700)
        work = partial(_write, place / name, AuditSync(sync), number)
        sys.stdout.write(f"{number} {end_of(work)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
