# SPDX-License-Identifier: MIT
"""Connection class over psycopg; the only module that needs it when it is imported."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Self

import psycopg
from psycopg import conninfo, pq
from psycopg.errors import Diagnostic
from psycopg.types.array import ListBinaryDumper
from psycopg.waiting import Ready, Wait

from hsm_core._internal.lib.silence import (
    PATIENCE_SECONDS,
    note_answer,
    pauses,
    seconds_left,
)
from hsm_core._internal.stores.index_rows import Row

if TYPE_CHECKING:
    from psycopg.abc import RV, PQGen, PQGenConn

    from hsm_core._internal.stores.postgresql.connection import ServerFacts

__all__ = ["ServerConnection", "conninfo", "errors", "lost", "too_slow"]

errors: Final = (psycopg.Error, UnicodeDecodeError)
"""Errors of the driver; the second is for a text that is not valid UTF-8."""

lost: Final = (psycopg.OperationalError, psycopg.InterfaceError)
"""Errors that mean that the connection is lost, if the server reported none."""

too_slow: Final = psycopg.errors.ConnectionTimeout
"""Error of a server that takes too long to accept a connection."""

_EVENTS: Final = {
    Wait.R: select.POLLIN,
    Wait.W: select.POLLOUT,
    Wait.RW: select.POLLIN | select.POLLOUT,
}
_WARNINGS: Final = frozenset({"WARNING", None})


class _Attempt(threading.local):
    """Seconds that this thread has for each host that it connects to."""

    seconds = 0.0


_attempt: Final = _Attempt()


class ServerConnection(psycopg.Connection[Row]):
    """
    Connection in autocommit mode, with a time limit for every statement.

    Attributes:
        server: Settings of the server, once they were read.
        patience: Seconds that a statement may take.
        is_fresh: Whether it was made for who has it now.
        has_hung: Whether a statement took longer than it may.
        warnings: Messages of the server at warning level since this was last cleared.
        with_commit: Statements that are sent with the COMMIT; see `run_with_commit`.
    """

    server: ServerFacts

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cursor_factory = psycopg.RawCursor
        # The text of an array takes fifty times as long, here and in the server.
        self.adapters.register_dumper(list, ListBinaryDumper)
        self.patience = PATIENCE_SECONDS
        self.is_fresh = True
        self.has_hung = False
        self.warnings: list[str] = []
        self.with_commit: list[tuple[str, Sequence[object]]] = []
        self.add_notice_handler(self._note)

    @classmethod
    def reach(cls, conninfo: str, hosts: int) -> ServerConnection:
        """
        Connect; within a task, in the time that it has left, shared by all hosts.

        Raises:
            psycopg.Error: None of the hosts can be reached, or not in time.
        """
        _attempt.seconds = max(seconds_left(), 0) / hosts
        try:
            return cls.connect(conninfo, autocommit=True)
        except psycopg.Error as error:
            # A frame of the driver holds the error and its connection, in a circle.
            raise error.with_traceback(None) from None

    @classmethod
    def _connect_gen(cls, *arguments: Any, **options: Any) -> PQGenConn[Self]:
        """Connect to one host; psycopg resumes this several times a second."""
        ends = time.monotonic() + _attempt.seconds
        gen = super()._connect_gen(*arguments, **options)
        ready: Any = None
        try:
            while time.monotonic() <= ends:
                ready = yield gen.send(ready)
        except StopIteration as end:
            note_answer()
            connection: Self = end.value
            return connection
        gen.close()
        raise psycopg.OperationalError("The server did not answer.")

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
        except BaseException as error:
            if not isinstance(error, psycopg.Error):
                self.abandon()
            # Closed later by Python, it would complain of the closed connection.
            with suppress(psycopg.Error, RuntimeError):
                gen.close()
            raise

    def _wait(self, gen: PQGen[RV], patience: float) -> RV:
        poll = select.poll()
        try:
            wanted = next(gen)
            for seconds in pauses(patience):
                poll.register(self.pgconn.socket, _EVENTS[wanted])
                if found := poll.poll(seconds * 1000):
                    wanted = gen.send(_ready(wanted, found[0][1]))
        except StopIteration as end:
            note_answer()
            result: RV = end.value
            return result
        self.has_hung = True
        self.abandon()
        raise psycopg.OperationalError("The server did not answer.")

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

    @contextmanager
    def pipeline(self) -> Iterator[psycopg.Pipeline]:
        """
        Send statements in one write; close the connection if one is refused.

        The server skips those behind it, and the driver takes them for prepared.
        """
        try:
            with super().pipeline() as pipeline:
                yield pipeline
        except psycopg.Error:
            self.abandon()
            raise

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
