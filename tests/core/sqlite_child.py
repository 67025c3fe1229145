# SPDX-License-Identifier: MIT
"""
A program that makes keys in a SQLite store while its disk fails, or until it is killed.

Usage: ``python -m tests.core.sqlite_child PATH COUNT [POINT HITS]``. It kills itself
when failpoint POINT is reached for the HITS-th time. Prints a line ``ack NUMBER`` for
each key that was made, ``failed ERROR`` for each that was not, and after a failure that
made the store unavailable ``reopened`` or ``unavailable``.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.sqlite.records import SqliteKeyStore
from hsm_core.errors import HSMError, StoreUnavailableError
from tests.core.key_support import change_of, document_of, key_id_of, operation_of

BLOB = b"sealed" * 500
_TRIES = 10


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _make(store: SqliteKeyStore, number: int) -> None:
    document = document_of(number, tags=("t",), operations=(operation_of(number),))
    change = change_of(document, operation_of(number), blobs={1: BLOB})
    try:
        store.commit(change)
    except HSMError as error:
        _say(f"failed {error.code}")
        if not store.available:
            _recover(store)
    else:
        _say(f"ack {number}")


def _recover(store: SqliteKeyStore) -> None:
    for call in (lambda: store.get(key_id_of(0)), lambda: store.read_meta("ring")):
        try:
            call()
        except StoreUnavailableError:
            continue
        raise AssertionError("A store of unknown content gave an answer.")
    for _ in range(_TRIES):
        try:
            store.reopen()
        except StoreUnavailableError:
            _say("unavailable")
        else:
            _say("reopened")
            return


def main(arguments: list[str]) -> None:
    """Make as many keys as were asked for."""
    path, count, *point = arguments
    left = int(point[1]) if point else 0

    def reached(name: str) -> None:
        nonlocal left
        left -= bool(point) and name == point[0]
        if point and not left:
            os.kill(os.getpid(), signal.SIGKILL)

    with ExitStack() as stack:
        stack.enter_context(install(reached))
        store = SqliteKeyStore(Path(path))
        stack.callback(store.close)
        begin = sum(1 for _ in store.digests())
        _say("open")
        for number in range(begin, begin + int(count)):
            _make(store, number)


if __name__ == "__main__":
    main(sys.argv[1:])
