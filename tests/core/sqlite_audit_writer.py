"""
Writes a trail in SQLite until it is done or killed; run by tests as a process.

Arguments: path, sync mode, number of records, failpoint to die at (or ``-``), how often
that must be reached, seed, and ``prune`` to prune now and then (or ``-``). Each line of
output is ``ack SEQ``, or ``refused SECONDS`` when an append failed after so long.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.sqlite.audit import SqliteAuditLog
from hsm_core.errors import AuditUnavailableError
from hsm_core.settings import AuditSync
from tests.core.audit_support import draft
from tests.core.sqlite_audit_support import open_log

_PATIENCE_SECONDS = 3.0


def _die_at(name: str, hits: int) -> Callable[[str], None]:
    left = hits

    def handler(reached: str) -> None:
        nonlocal left
        if reached == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return handler


def _write(
    log: SqliteAuditLog,
    count: int,
    choice: random.Random,
    *,
    durable: float,
    prune: bool,
) -> None:
    end = log.head().seq + count
    patience = time.monotonic() + _PATIENCE_SECONDS
    turns = 0
    while log.head().seq < end and time.monotonic() < patience:
        began = time.monotonic()
        drafts = [draft(turns) for _ in range(choice.randint(1, 4))]
        try:
            log.append(drafts, durable=choice.random() < durable).wait()
        except AuditUnavailableError:
            _say(f"refused {time.monotonic() - began:.3f}")
            time.sleep(0.02)
            continue
        patience = time.monotonic() + _PATIENCE_SECONDS
        _say(f"ack {log.head().seq}")
        turns += 1
        if prune and turns % 10 == 0:
            log.prune(log.head().seq - 5, "test")


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def main(arguments: list[str]) -> None:
    """Write, and say what was acknowledged."""
    path, sync, count, point, hits, seed, prune = arguments
    choice = random.Random(int(seed))
    with install(_die_at(point, int(hits))):
        log = open_log(Path(path), sync=AuditSync(sync), timeout_seconds=1.5)
        # Whoever waits for a sync leaves none to be done later.
        share = 0.0 if "sync" in point else 0.2
        _write(log, int(count), choice, durable=share, prune=prune == "prune")
        with suppress(AuditUnavailableError):
            log.close()


if __name__ == "__main__":
    main(sys.argv[1:])
