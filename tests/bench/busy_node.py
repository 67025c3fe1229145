# SPDX-License-Identifier: MIT
"""
An embedded HSM in a process of its own, the same over every store that is measured.

Usage: ``python -m tests.bench.busy_node STORE NAME FOLDER``; NAME is that of a node. It
prints ``ready`` when it has a key and has warmed up. Each further line is what to do
with the key, how many times, and a number: ``sign TIMES THREADS``, ``batch TIMES SIZE``
or ``rotate TIMES 1``. It prints the seconds that it took.
"""

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from hsm_core import operations as ops
from hsm_core.algorithms import Algorithm
from hsm_core.factory import open_hsm
from hsm_core.model import KeyId
from hsm_core.session import Session
from hsm_core.settings import AuditSync, Settings
from hsm_core.testing import caller

_MESSAGE: Final = bytes(32)
_PATIENCE_SECONDS: Final = 60


class Work:
    """What is measured, with one key of a session."""

    def __init__(self, session: Session, key_id: KeyId) -> None:
        self._session = session
        self._key_id = key_id

    def sign(self, times: int, threads: int) -> None:
        """Sign so many times, so many at once."""

        def turn() -> None:
            for _ in range(times // threads):
                self._session.sign(self._key_id, _MESSAGE)

        with ThreadPoolExecutor(threads) as pool:
            for turns in [pool.submit(turn) for _ in range(threads)]:
                turns.result()

    def batch(self, times: int, size: int) -> None:
        """Sign so many batches of a size, one after the other: each is a group."""
        items = tuple(ops.SignItem(message=_MESSAGE) for _ in range(size))
        for _ in range(times):
            self._session.sign_batch(self._key_id, items)

    def rotate(self, times: int, _: int) -> None:
        """Rotate the key so many times."""
        for _ in range(times):
            self._session.rotate(self._key_id)


def main(store: str, name: str, folder: str) -> None:
    """Open the HSM, and work as often as a line comes."""
    is_node = store.startswith("postgresql:")
    settings = Settings(
        store=store,
        audit_sync=AuditSync.STRICT,
        audit_timeout_seconds=_PATIENCE_SECONDS,
        node_name=name if is_node else "",
        node_mark=Path(folder) / f"{name}.mark" if is_node else None,
    )
    with open_hsm(
        settings, master_key=bytes(32), hmac_key=bytes(32), test_all=False
    ) as hsm:
        session = Session(hsm.act_as(caller()))
        work = Work(session, session.create_key(Algorithm.ED25519).key_id)
        kinds: dict[str, Callable[[int, int], None]] = {
            "sign": work.sign,
            "batch": work.batch,
            "rotate": work.rotate,
        }
        work.sign(400, 4)
        work.rotate(3, 1)
        _tell("ready")
        for line in sys.stdin:
            kind, times, number = line.split()
            began = time.perf_counter()
            kinds[kind](int(times), int(number))
            _tell(str(time.perf_counter() - began))


def _tell(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
