# SPDX-License-Identifier: MIT
"""Faults of a cluster: cut connections, fail-over, and protections switched off."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from hsm_core._internal.cluster import following
from hsm_core._internal.stores.postgresql import audit_rows, records
from tests.postgresql import PostgreSQL

_BLOCK = 65536
_LATE: Final = 0.4
_ARRIVES: Final = 0.8
_LATEST_SECONDS: Final = 0.8
_STANDBY: Final = "standby"
_CANCEL: Final = (
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
)
_TELLING = (b"COMMIT", b"INSERT INTO records")
"""What a client sends in the message whose outcome a cut makes unknown."""


class Proxy:
    """
    Socket that leads to a server, and whose connections can be cut.

    Args:
        server: Returns the socket of the server.

    Attributes:
        folder: Where the socket lies, for the URL.
        cuts: How many connections were cut.
    """

    def __init__(self, server: Callable[[], Path]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="proxy-", dir="/dev/shm"))
        self.cuts = 0
        self._server = server
        self._is_armed = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / server().name))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Cut the next connection that commits, when that was sent."""
        self._is_armed.set()

    def close(self) -> None:
        """Accept nothing more."""
        self._listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                try:
                    server.connect(str(self._server()))
                except OSError:
                    client.close()
                    server.close()
                    continue
                ended: list[None] = []
                for ends in ((client, server), (server, client)):
                    threading.Thread(
                        target=self._pump,
                        args=(*ends, ends[0] is client, ended),
                        daemon=True,
                    ).start()

    def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        is_client: bool,
        ended: list[None],
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_BLOCK):
                is_telling = is_client and any(word in data for word in _TELLING)
                if is_telling and self._is_armed.is_set():
                    self._is_armed.clear()
                    self.cuts += 1
                    # The client learns nothing. The server reads what was sent, at
                    # once, or when the client has done something about it, or never.
                    source.shutdown(socket.SHUT_RDWR)
                    luck = random.random()
                    if luck < _LATE:
                        time.sleep(random.random() * _LATEST_SECONDS)
                    if luck < _ARRIVES:
                        sink.sendall(data)
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_WR if end is sink else socket.SHUT_RDWR)
        ended.append(None)
        if len(ended) > 1:
            source.close()
            sink.close()


class Pair:
    """
    Database server with a synchronous standby, which takes its place again and again.

    Attributes:
        primary: The server that accepts writes.
    """

    def __init__(self) -> None:
        self.primary = PostgreSQL.create(max_connections="100")
        self._standby = self._new_standby()

    def url(self, database: str) -> str:
        """Return an address of a database, with both servers."""
        both = (self.primary, self._standby)
        hosts = ",".join(str(server.folder) for server in both)
        ports = ",".join(str(server.port) for server in both)
        return self.primary.url(database, host=hosts, port=ports)

    def _new_standby(self, folder: Path | None = None) -> PostgreSQL:
        self.primary.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        self.primary.reload()
        standby = self.primary.replica(_STANDBY, folder)
        # Once it is the primary it has none.
        self.primary.execute(f"ALTER SYSTEM SET synchronous_standby_names = {_STANDBY}")
        self.primary.reload()
        return standby

    def cancel_waits(self, seconds: float) -> int:
        """Let commits wait for the standby, and cancel that; return how many."""
        if not self._standby.is_running:
            return 0
        found = self._standby.execute("SELECT pid FROM pg_stat_wal_receiver")
        if not found or not found[0][0]:
            return 0
        (receiver,) = found[0]
        canceled, ends = 0, time.monotonic() + seconds
        os.kill(receiver, signal.SIGSTOP)
        try:
            while time.monotonic() < ends:
                time.sleep(0.02)
                canceled += len(self.primary.execute(_CANCEL))
        finally:
            os.kill(receiver, signal.SIGCONT)
        return canceled

    def fail_over(self) -> None:
        """End the primary at once, and promote the standby."""
        self.primary.stop("immediate")
        self._standby.promote()
        self.primary, self._standby = self._standby, self.primary

    def restore(self) -> None:
        """Replace a primary that has failed by a new standby, unless both run."""
        if not self._standby.is_running:
            self._standby = self._new_standby(self._standby.folder)

    def remove(self) -> None:
        """End both servers."""
        self.primary.remove()
        self._standby.remove()


def _replace_in_group(old: str, new: str) -> None:
    statement = audit_rows._INSERT_IF  # noqa: SLF001 (what is switched off)
    assert old in statement
    audit_rows._INSERT_IF = statement.replace(old, new)  # type: ignore[misc]  # noqa: SLF001


def _no_fence() -> None:
    _replace_in_group(
        "WHERE node = $9 AND epoch = $10 FOR SHARE",
        "WHERE node = $9 AND $10::bigint IS NOT NULL",
    )


def _no_later_changes() -> None:
    _replace_in_group(
        "AND NOT EXISTS (SELECT 1 FROM changes WHERE revision > $11 "
        "AND (subject IS NULL OR subject = ANY($13::text[])))",
        "AND $13::text[] IS NOT NULL",
    )


def _no_unique_operation() -> None:
    old, new = "DO NOTHING", "DO UPDATE SET key_id = EXCLUDED.key_id, aborted = false"
    assert old in records._OPERATION  # noqa: SLF001 (what is switched off)
    records._OPERATION = records._OPERATION.replace(old, new)  # type: ignore[misc]  # noqa: SLF001


def _no_abort_mark() -> None:
    assert "RETURNING aborted" in records._ABORT  # noqa: SLF001 (what is switched off)
    records._ABORT = (  # type: ignore[misc]  # noqa: SLF001
        "SELECT coalesce((SELECT aborted FROM operations WHERE operation_id = $1), "
        "true)"
    )


def _slow_feed() -> None:
    setattr(following, "listen", lambda _: None)  # noqa: B010 (as if notices were lost)
    setattr(following, "_POLL_SECONDS", 5.0)  # noqa: B010


_OFF: Final[Mapping[str, Callable[[], None]]] = {
    "fence": _no_fence,
    "later": _no_later_changes,
    "operation": _no_unique_operation,
    "abort": _no_abort_mark,
    "feed": _slow_feed,
}


def switch_off(protection: str) -> None:
    """
    Switch a protection of this process off, so that tests show that they notice.

    The feed of changes is none: without its notices, polled rarely, it only makes a
    node slower to know what others have changed.
    """
    _OFF[protection]()
