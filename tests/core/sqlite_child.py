# SPDX-License-Identifier: MIT
"""
A program that makes keys in a SQLite store while its disk fails.

Usage: ``python -m tests.core.sqlite_child PATH COUNT``. Prints ``ack NUMBER`` for
each key that was made, ``failed ERROR`` for each that was not, and after a failure that
made the store unavailable ``reopened`` or ``unavailable``.
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

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


def main(path: str, count: str) -> None:
    """Make as many keys as were asked for."""
    with closing(SqliteKeyStore(Path(path))) as store:
        begin = sum(1 for _ in store.digests())
        _say("open")
        for number in range(begin, begin + int(count)):
            _make(store, number)


if __name__ == "__main__":
    main(*sys.argv[1:])
