# SPDX-License-Identifier: MIT
"""Listening sockets and event loops."""

from __future__ import annotations

import asyncio
import errno
import gc
import importlib.util
import os
import socket
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

from hsm_core.errors import ConfigurationError
from hsm_server.config.annotations import Address
from hsm_server.config.exit_codes import ListenError
from hsm_server.config.settings import EventLoop, ServerSettings

_FIRST: Final = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
_BACKLOG: Final = 128


def listening_sockets(
    address: Address, environment: Mapping[str, str]
) -> list[socket.socket]:
    """
    Return the sockets that systemd has handed over, else one that is bound here.

    Raises:
        ListenError: See `adopt` and `bind`.
    """
    return adopt(environment) or [bind(*address)]


def challenge_sockets(settings: ServerSettings) -> list[socket.socket]:
    """
    Return the socket where a CA's challenges are answered over HTTP, if there is one.

    Raises:
        ListenError: See `bind`.
    """
    acme = settings.tls.acme if settings.tls is not None else None
    if acme is None or acme.http_address is None:
        return []
    return [bind(*acme.http_address)]


def metrics_sockets(settings: ServerSettings) -> list[socket.socket]:
    """
    Return the socket where only metrics are shown, if there is one.

    Raises:
        ListenError: See `bind`.
    """
    address = settings.metrics.address
    return [] if address is None else [bind(*address)]


def adopt(
    environment: Mapping[str, str],
    take: Callable[[int], socket.socket] = lambda fd: socket.socket(fileno=fd),
) -> list[socket.socket]:
    """
    Return the sockets that systemd has handed over to this process (sd_listen_fds(3)).

    Args:
        environment: Environment with ``LISTEN_PID`` and ``LISTEN_FDS``.

        take: Makes a socket of a descriptor.

    Raises:
        ListenError: One is no listening stream socket.
    """
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = environment.get("LISTEN_FDS", "")
    if not count.isascii() or not count.isdigit():
        return []
    return [_checked(number, take) for number in range(_FIRST, _FIRST + int(count))]


def _checked(number: int, take: Callable[[int], socket.socket]) -> socket.socket:
    try:
        found = take(number)
        is_listening = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        raise ListenError(f"Descriptor {number} is not a listening socket.") from None
    if not is_listening or found.type != socket.SOCK_STREAM:
        raise ListenError(f"Descriptor {number} is not a listening socket.")
    os.set_inheritable(number, False)
    found.setblocking(False)
    return found


def bind(host: str, port: int) -> socket.socket:
    """
    Return a socket that listens.

    Raises:
        ListenError: The address is in use, or not one of this machine.
    """
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError):
        raise ListenError(f"Cannot resolve the address {host}.") from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        # Listening at once makes a second server on this address fail here, before
        # it looks at any key. Connections wait until they are accepted.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = (
            "the address is in use"
            if error.errno == errno.EADDRINUSE
            else str(error.strerror)
        )
        raise ListenError(f"Cannot listen on {host}:{port}: {reason}.") from None
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL of a socket, or the path of a Unix socket."""
    if listener.family == socket.AF_UNIX:
        return f"https+unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


R = TypeVar("R")

_INCOMING_BYTES: Final = 32 * 1024
"""Buffer for encrypted input of one TLS connection."""

_COLLECTIONS: Final = (700, 10, 100)
"""Thresholds of garbage collection: that of all objects is tried at 700,000 more."""


def check_loop(kind: EventLoop) -> None:
    """
    Check that the event loop is installed.

    Raises:
        ConfigurationError: It must be installed first.
    """
    if kind is EventLoop.UVLOOP and not _has_uvloop():
        raise ConfigurationError(
            "event-loop: uvloop is not installed. Run: pip install uvloop."
        )


def _has_uvloop() -> bool:
    return importlib.util.find_spec("uvloop") is not None


def pass_over_what_stays() -> None:
    """
    Exclude existing objects from garbage collection.

    At the end of a start that is what modules are made of, and stays. To look at it
    takes longer than to answer many requests, which wait meanwhile.
    """
    gc.collect()
    gc.freeze()


def collect_rarely() -> None:
    """
    Run full garbage collections ten times less often.

    With thousands of connections, each takes a tenth of a second and finds nothing.
    """
    gc.set_threshold(*_COLLECTIONS)


def run(main: Coroutine[Any, Any, R], kind: EventLoop) -> R:
    """
    Run a coroutine to its end on a new event loop.

    asyncio gives each TLS connection 256 KiB for what comes in, as long as it lives.
    Strangers can have many that do nothing.
    """
    SSLProtocol.max_size = _INCOMING_BYTES
    is_auto = kind is EventLoop.AUTO
    if kind is EventLoop.UVLOOP or (is_auto and _has_uvloop()):
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main)
    return asyncio.run(main)
