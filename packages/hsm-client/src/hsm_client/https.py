# SPDX-License-Identifier: MIT
"""HTTPS connections over `http.client`: pool, request, and response in pieces."""

from __future__ import annotations

import io
import os
import re
import select
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from typing import Any, Final, cast

_MOST_INTERIM: Final = 16
"""Interim responses (1xx) before a response."""

_NEVER: Final = float("inf")
_LENGTH: Final = re.compile("[0-9]{1,15}")
_PIECE_BYTES: Final = 16 * 1024
"""Longest plaintext of a TLS record, which is what one read returns."""


class ConnectError(Exception):
    """Failure to connect, before TLS; ``__cause__`` is the error of the socket."""


class ClosedPoolError(Exception):
    """Use of a pool that was closed."""


class AmbiguousLengthError(HTTPException):
    """Response whose end can't be known: Content-Length is no number, or several."""


HTTPS_ERRORS: Final = (ConnectError, HTTPException, OSError, ValueError)
"""Errors of the functions in this module."""


class _Limited(io.RawIOBase):
    """What arrives at a socket, until a deadline."""

    def __init__(self, arriving: io.RawIOBase, deadline: float) -> None:
        self._arriving = arriving
        self.deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        if time.monotonic() > self.deadline:
            raise TimeoutError
        return cast("int | None", self._arriving.readinto(buffer))

    def close(self) -> None:
        self._arriving.close()
        super().close()


class _Response(HTTPResponse):
    """
    Final response; those before it, of which `HTTPResponse` skips 100 alone, too.

    The time-out of the socket, which begins again with each byte, is also that of
    status and headers together.

    Attributes:
        limited: What arrives, until a deadline.
    """

    def __init__(self, sock: socket.socket, *more: Any, **options: Any) -> None:
        super().__init__(sock, *more, **options)
        deadline = time.monotonic() + (sock.gettimeout() or _NEVER)
        arriving: Any = self.fp
        self.limited = _Limited(arriving.detach(), deadline)
        self.fp = io.BufferedReader(self.limited)

    def begin(self) -> None:
        """
        Read status and headers.

        Raises:
            AmbiguousLengthError: They have no single length.
        """
        for _ in range(_MOST_INTERIM):
            super().begin()
            if self.status >= HTTPStatus.OK:
                self.limited.deadline = _NEVER
                lengths = set(self.headers.get_all("Content-Length", ["0"]))
                if len(lengths) > 1 or not _LENGTH.fullmatch(lengths.pop()):
                    raise AmbiguousLengthError
                return
            self.headers = self.msg = cast("Any", None)  # so that begin() reads on
        raise HTTPException("too many interim responses")


class ConnectionPool:
    """
    Kept connections to one server. Thread-safe; a forked process makes its own.

    Args:
        host: Name or address.

        port: TCP port.

        context: TLS context.

        size: Maximum number of idle connections.
    """

    def __init__(
        self, host: str, port: int, context: ssl.SSLContext, *, size: int
    ) -> None:
        self._host, self._port, self._context = host, port, context
        self._size = size
        self._is_closed = False
        self._begin()

    def _begin(self) -> None:
        """Begin without connections, in this process."""
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[HTTPConnection] = []
        # As files are: who forgets to close it leaves no open sockets.
        weakref.finalize(self, _close_all, self._idle)

    def take(self, timeout_seconds: float) -> HTTPConnection:
        """
        Return an idle connection, or a new one.

        Raises:
            ClosedPoolError: The pool is closed.
            ConnectError: There is no connection to the server.
            OSError: The TLS handshake failed.
        """
        if os.getpid() != self._process:
            # Two processes on one TLS connection would encrypt with the same nonces.
            self._begin()
        while True:
            with self._lock:
                if self._is_closed:
                    raise ClosedPoolError
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return connect(self._host, self._port, self._context, timeout_seconds)
            if _is_quiet(connection):
                return connection
            connection.close()

    def give_back(self, connection: HTTPConnection) -> None:
        """Keep a connection whose response was read to its end."""
        with self._lock:
            has_room = not self._is_closed and len(self._idle) < self._size
            if has_room and connection.sock is not None:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close the idle connections; those in use close after their response."""
        with self._lock:
            self._is_closed = True
            idle, self._idle[:] = self._idle[:], []
        _close_all(idle)


def _close_all(connections: list[HTTPConnection]) -> None:
    while connections:
        connections.pop().close()


def connect(
    host: str, port: int, context: ssl.SSLContext, timeout_seconds: float
) -> HTTPConnection:
    """
    Return a new connection.

    Raises:
        ConnectError: There is no connection to the server.
        OSError: The TLS handshake failed.
    """
    # Bytes, unlike text, do not load the codec of names beyond ASCII.
    encoded: Any = host.encode()
    try:
        plain = socket.create_connection((encoded, port), timeout_seconds)
    except OSError as error:
        raise ConnectError from error
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = host.partition("%")[0]
        # Certificates hold names without the dot that ends a complete one.
        secure = context.wrap_socket(plain, server_hostname=name.rstrip(".").encode())
    except BaseException:
        plain.close()
        raise
    connection = HTTPConnection(name, port)
    connection.auto_open = 0
    connection.response_class = _Response
    connection.default_port = 443
    connection.sock = secure
    return connection


def send(
    connection: HTTPConnection,
    method: str,
    target: str,
    *,
    body: bytes | None,
    headers: Mapping[str, str],
    timeout_seconds: float,
) -> HTTPResponse:
    """
    Send a request, and return its response, whose body is not yet read.

    Args:
        connection: The connection.

        method: Method.

        target: Path and query.

        body: Body; None for none.

        headers: Header fields.

        timeout_seconds: Longest silence of the server, from now on.

    Raises:
        HTTPException, OSError, ValueError: There is no response, or an invalid one.
    """
    connection.sock.settimeout(timeout_seconds)
    try:
        connection.request(method, target, body, headers)
    except TimeoutError:
        raise
    except OSError:
        # A server that refuses a body may respond and close before it has read it.
        pass
    return connection.getresponse()


def read_pieces(
    response: HTTPResponse, timeout_seconds: float = _NEVER
) -> Iterator[bytes]:
    """
    Yield a response body as it arrives.

    Args:
        response: From `send`.

        timeout_seconds: Time limit for the body with all that surrounds its chunks.

    Raises:
        HTTPException, OSError: It is incomplete, or the server is silent or late.
    """
    if isinstance(response, _Response):
        response.limited.deadline = time.monotonic() + timeout_seconds
    # Python before 3.12.2 does not count what read1() returns.
    left = None if response.chunked else response.length
    while left is None or left > 0:
        most = _PIECE_BYTES if left is None else min(left, _PIECE_BYTES)
        piece = response.read1(most)
        if not piece:
            break
        if left is not None:
            left -= len(piece)
        yield piece
    if left:
        raise IncompleteRead(b"", left)
    response.close()


def _is_quiet(connection: HTTPConnection) -> bool:
    """Return whether an idle connection is open, and nothing came after a response."""
    idle: Any = connection.sock
    if idle.pending():
        return False
    poll = select.poll()
    poll.register(idle, select.POLLIN)
    return not poll.poll(0)
