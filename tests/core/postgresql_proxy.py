# SPDX-License-Identifier: MIT
"""Proxy before a PostgreSQL server, which cuts connections at a COMMIT, or hangs."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.postgresql import PORT, PostgreSQL

_COMMIT = b"COMMIT\0"


class Cut(Enum):
    """Place in a commit at which a connection is cut."""

    NEVER = auto()
    BEFORE = auto()
    """The server never sees the COMMIT."""
    AFTER = auto()
    """The server commits, and its answer is lost."""
    LATE = auto()
    """The client's connection is cut first, and the server commits when released."""


class CommitProxy:
    """
    Unix socket that passes everything on to a server, until a COMMIT is to be cut.

    Attributes:
        cut: Place of the cut; it is `Cut.NEVER` again after one.
        hangs: Whether it accepts connections, and swallows every byte.
        accepted: Number of connections that it has accepted.
        release: Lets a late COMMIT pass to the server.
    """

    def __init__(self, server: PostgreSQL) -> None:
        self._server = server.socket
        self._folder = Path(tempfile.mkdtemp(prefix="ferrohsm-proxy-"))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._folder / f".s.PGSQL.{PORT}"))
        self._listener.listen()
        self._threads: list[threading.Thread] = []
        self.cut = Cut.NEVER
        self.hangs = False
        self.accepted = 0
        self.release = threading.Event()
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(60)
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str) -> str:
        """Return the address of a database of the server, through this proxy."""
        return f"postgresql://ferrohsm@/{database}?host={self._folder}&port={PORT}"

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.accepted += 1
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        with client, server, suppress(OSError):
            server.connect(str(self._server))
            back = threading.Thread(target=self._copy, args=(server, client))
            back.start()
            self._pass_on(client, server, back)
            for each in (client, server):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            back.join()

    def _pass_on(
        self, client: socket.socket, server: socket.socket, back: threading.Thread
    ) -> None:
        while data := client.recv(65536):
            if self.hangs:
                continue
            cut = self.cut if _COMMIT in data else Cut.NEVER
            if cut is Cut.NEVER:
                server.sendall(data)
                continue
            self.cut = Cut.NEVER
            client.shutdown(socket.SHUT_RDWR)
            if cut is Cut.LATE:
                self.release.wait(60)
            if cut is not Cut.BEFORE:
                server.sendall(data)
                server.shutdown(socket.SHUT_WR)
                back.join()
            return

    def _copy(self, server: socket.socket, client: socket.socket) -> None:
        """Pass the server's answers on to its end, whether anybody takes them."""
        with suppress(OSError):
            while data := server.recv(65536):
                with suppress(OSError):
                    if not self.hangs:
                        client.sendall(data)
