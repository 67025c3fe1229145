# SPDX-License-Identifier: MIT
"""Connection class over psycopg; the only module that needs it when it is imported."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import conninfo, pq
from psycopg.errors import Diagnostic
from psycopg.waiting import Ready, Wait

from hsm_core._internal.stores.index_rows import Row
from hsm_core._internal.stores.postgresql.connection import PATIENCE_SECONDS

if TYPE_CHECKING:
    from psycopg.abc import RV, PQGen

    from hsm_core._internal.stores.postgresql.connection import ServerFacts

__all__ = ["ServerConnection", "conninfo", "errors", "lost"]

errors: Final = (psycopg.Error, UnicodeDecodeError)
"""Errors of the driver, which fails by the second to read a text that is none."""

lost: Final = (psycopg.OperationalError, psycopg.InterfaceError)
"""Those that mean, without a word of the server, that the connection is gone."""

_EVENTS: Final = {
    Wait.R: select.POLLIN,
    Wait.W: select.POLLOUT,
    Wait.RW: select.POLLIN | select.POLLOUT,
}
_WARNINGS: Final = frozenset({"WARNING", None})


class ServerConnection(psycopg.Connection[Row]):
    """
    Connection in autocommit mode, with a time limit for every statement.

    Attributes:
        server: Settings of the server, once they were read.
        patience: Seconds that a statement may take.
        is_fresh: Whether it was made for who has it now.
        has_hung: Whether a statement took longer than it may.
        warnings: Messages of the server at warning level since this was last cleared.
    """

    server: ServerFacts

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cursor_factory = psycopg.RawCursor
        self.patience = PATIENCE_SECONDS
        self.is_fresh = True
        self.has_hung = False
        self.warnings: list[str] = []
        self.add_notice_handler(self._note)

    def _note(self, message: Diagnostic) -> None:
        if message.severity_nonlocalized in _WARNINGS:
            self.warnings.append(message.message_primary or "")

    def wait(
        self, gen: PQGen[RV], interval: float = 0.0, timeout: float | None = None
    ) -> RV:
        """
        Wait for a statement, up to the time limit.

        Nothing is ever cancelled: a cancelled commit may have been made. The connection
        is closed instead, and the server finds that out for itself.
        """
        try:
            return self._wait(gen, self.patience if timeout is None else timeout)
        except psycopg.Error:
            raise
        except BaseException:
            self.abandon()
            raise

    def _wait(self, gen: PQGen[RV], patience: float) -> RV:
        ends = time.monotonic() + patience
        poll = select.poll()
        try:
            wanted = next(gen)
            while True:
                poll.register(self.pgconn.socket, _EVENTS[wanted])
                left = ends - time.monotonic()
                found = poll.poll(left * 1000) if left > 0 else []
                if not found:
                    self.has_hung = True
                    self.abandon()
                    raise psycopg.OperationalError("The server did not answer.")
                wanted = gen.send(_ready(wanted, found[0][1]))
        except StopIteration as end:
            result: RV = end.value
            return result

    @contextmanager
    def patiently(self, seconds: float) -> Iterator[None]:
        """Give statements in a ``with`` block another time limit."""
        before, self.patience = self.patience, seconds
        try:
            yield
        finally:
            self.patience = before

    @property
    def is_idle(self) -> bool:
        """Whether it is open and in no transaction."""
        return self.pgconn.transaction_status == pq.TransactionStatus.IDLE

    def abandon(self) -> None:
        """Close it at once, without a word to the server."""
        self.pgconn.finish()


def _ready(wanted: Wait, events: int) -> Ready:
    """Return which of what is waited for can go on; a socket that fails can."""
    if wanted == Wait.RW and events == select.POLLIN:
        return Ready.R
    if wanted == Wait.RW and events == select.POLLOUT:
        return Ready.W
    return Ready(int(wanted))
