"""
Writes a log until it is done or killed; run by tests as a process.

Arguments: path, sync mode, number of records, and ``prune`` to prune now and then (or
``-``). Each line of output is ``ack SEQ``, or ``refused SECONDS`` when an append failed
after so long.
"""

from __future__ import annotations

import os
import random
import sys
import time
from contextlib import suppress
from pathlib import Path

from hsm_core._internal.audit.log import DurableAuditLog
from hsm_core.errors import AuditUnavailableError
from hsm_core.settings import AuditSync
from tests.core.audit_support import draft, open_any

_PATIENCE_SECONDS = 10.0


def _write(log: DurableAuditLog, count: int, *, prunes: bool) -> None:
    choice = random.Random(0)
    end = log.head().seq + count
    patience = time.monotonic() + _PATIENCE_SECONDS
    while log.head().seq < end and time.monotonic() < patience:
        began = time.monotonic()
        drafts = [
            draft(max(log.head().seq, 0) + 1 + n) for n in range(choice.randint(1, 4))
        ]
        try:
            log.append(drafts, durable=choice.random() < 0.2).wait()
        except AuditUnavailableError:
            _say(f"refused {time.monotonic() - began:.3f}")
            time.sleep(0.02)
            continue
        patience = time.monotonic() + _PATIENCE_SECONDS
        _say(f"ack {log.head().seq}")
        if prunes and choice.random() < 0.1:
            log.prune(log.head().seq - 5, "test")


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def main(arguments: list[str]) -> None:
    """Write, and say what was acknowledged."""
    path, sync, count, prune = arguments
    log = open_any(Path(path), sync=AuditSync(sync), timeout_seconds=1.5)
    _write(log, int(count), prunes=prune == "prune")
    with suppress(AuditUnavailableError):
        log.close()


if __name__ == "__main__":
    main(sys.argv[1:])
