# SPDX-License-Identifier: MIT
"""
Node of a cluster that works until its input ends; run as a process of either build.

Arguments: URL of the database, name and folder; or ``verify`` and the URL. Each line of
input asks for a line of JSON: what was done since the last one, and each error.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import hsm_core
from hsm_core._internal.stores.postgresql.audit_offline import ClusterVerifier
from hsm_core._internal.stores.postgresql.connection import read_location
from hsm_core.errors import ConflictError, HSMError
from hsm_core.factory import open_hsm
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import caller

ROOT, AUDIT_KEY = b"\x01" * 32, b"\x02" * 32
SHARED = "shared"


def _chain(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield repr(error)
        error = error.__cause__


def _say(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


class Work:
    """Threads that use and change keys, and count what came of it."""

    def __init__(self, session: Session, node: str) -> None:
        self._session = session
        self._node = node
        self._is_over = threading.Event()
        self._number = 0
        self._done = Counter[str]()
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._repeat, args=work)
            for work in (
                ("uses", self._use),
                ("uses", self._use),
                ("changes", self._change),
            )
        ]
        for thread in self._threads:
            thread.start()

    def _repeat(self, kind: str, work: Callable[[], object]) -> None:
        while not self._is_over.wait(0.2):
            try:
                work()
            except HSMError as error:
                self._errors.append(f"{kind}: {' < '.join(_chain(error))}")
                self._is_over.wait(0.05)
            else:
                self._done[kind] += 1

    def _use(self) -> None:
        self._session.sign(SHARED, b"m")

    def _change(self) -> None:
        self._number += 1
        name = f"{self._node}-{self._number}-{id(self)}"
        key_id = self._session.create_key("ed25519", name=name).key_id
        self._session.sign(key_id, b"m")
        self._session.rotate(key_id)
        self._session.revoke(key_id)

    def take(self) -> dict[str, object]:
        """Return what was done since this was last called."""
        done, self._done = self._done, Counter()
        errors, self._errors = self._errors, []
        return {"done": done, "errors": errors}

    def end(self) -> None:
        """Come to an end."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()


def live(url: str, name: str, folder: str) -> None:
    """Be a node until the input ends."""
    settings = Settings(store=url, node_name=name, node_mark=Path(folder) / name)
    hsm = open_hsm(settings, master_key=ROOT, hmac_key=AUDIT_KEY, test_all=False)
    with hsm:
        session = Session(hsm.act_as(caller()))
        with suppress(ConflictError):
            session.create_key("ed25519", name=SHARED, idempotency_key=SHARED)
        _say(open=hsm_core.__version__)
        work = Work(session, name)
        for _ in sys.stdin:
            _say(**work.take())
        work.end()
        _say(**work.take())


def verify(url: str) -> None:
    """Verify all logs of a cluster, and tell how many records they have."""
    found = ClusterVerifier(read_location(url), AUDIT_KEY).verify()
    _say(records={each.node: each.log.records for each in found})


def main(arguments: list[str]) -> int:
    """Do what the command line says."""
    try:
        if arguments[0] == "verify":
            verify(*arguments[1:])
        else:
            live(*arguments)
    except HSMError as error:
        _say(failed=error.code, message=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
