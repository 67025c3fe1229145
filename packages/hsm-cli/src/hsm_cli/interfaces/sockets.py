# SPDX-License-Identifier: MIT
"""Sockets of local interfaces: listener, peer credentials, streams of bytes."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import POLLRDHUP, poll, select
from types import FrameType
from typing import Final, Self, TypeAlias

import msgspec

from hsm_core.errors import ConfigurationError
from hsm_core.private_files import make_private_folder

MOST_CONNECTIONS: Final = 256
"""Connections at a time; further ones are closed at once."""

MOST_OF_PROCESS: Final = 64
"""Connections of one process at a time."""

_FRAME_SECONDS: Final = 30
"""Time for the rest of a frame that has begun, and for a write."""
_STOP_SECONDS: Final = 10.0
"""Time for running requests when the listener stops."""

_RETRY_SECONDS: Final = 0.1
"""Pause after a connection that could not be accepted."""

_LONGEST_PATH: Final = 107
"""Bytes of a socket path, unix(7)."""
_CHUNK: Final = 64 * 1024
_CREDENTIALS: Final = struct.Struct("3i")
_FIRST_INHERITED: Final = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)


class StreamEndedError(Exception):
    """The peer closed the stream, or stopped in the middle of a frame."""


class Peer(msgspec.Struct, frozen=True):
    """
    Process at the other end of a stream.

    Attributes:
        uid: User ID, from the kernel.
        pid: Process ID, from the kernel; 0 if it is in another PID namespace.
        program: Name of its program file. The process can change it: it is a claim.
    """

    uid: int
    pid: int
    program: str


class Stream:
    """
    Two-way stream of bytes with a peer. One thread uses it.

    Args:
        incoming: Descriptor to read from.

        outgoing: Descriptor to write to; may be the same.

    Attributes:
        peer: The process at the other end.
    """

    def __init__(self, incoming: int, outgoing: int, peer: Peer) -> None:
        self.peer = peer
        self._incoming = incoming
        self._outgoing = outgoing
        self._rest = b""

    def arrived(self, least: int) -> bytes:
        """
        Return all bytes that have come, at least *least*.

        The first may take any time, as between two requests.

        Args:
            least: Number of bytes; each further one must follow within 30 seconds.

        Raises:
            StreamEndedError: The stream ended first.
        """
        data = self._rest or self._receive(_CHUNK, waits=True)
        self._rest = b""
        return data if len(data) >= least else self.completed(data, least)

    def completed(self, data: bytes, length: int) -> bytes:
        """
        Return exactly *length* bytes, and keep what is more for `arrived`.

        Args:
            data: What has come of them, by `arrived` or this.

            length: Number of bytes; the caller caps it. Memory grows with what has
                come, not with what was announced. Each must follow within 30 seconds.

        Raises:
            StreamEndedError: The stream ended first.
        """
        if len(data) >= length:
            self._rest = data[length:]
            return data[:length]
        parts, missing = [data], length - len(data)
        while missing:
            # Read to its end and no further: `return_from` would wait for bytes that
            # come only after an answer.
            found = self._receive(min(missing, _CHUNK), waits=False)
            parts.append(found)
            missing -= len(found)
        return b"".join(parts)

    def return_from(self, length: int) -> None:
        """
        Let each wait go on until *length* bytes have come, or none for 30 seconds.

        A peer that writes a frame in pieces would wake this process for each. A pipe
        ignores this.

        Args:
            length: Length of the shortest frame, in bytes.
        """
        with suppress(OSError), socket.socket(fileno=os.dup(self._incoming)) as twin:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, length)

    def _receive(self, most: int, *, waits: bool) -> bytes:
        while True:
            try:
                found = os.read(self._incoming, most)
            except BlockingIOError:  # SO_RCVTIMEO
                if not waits:
                    raise StreamEndedError from None
            except OSError:
                raise StreamEndedError from None
            else:
                if not found:
                    raise StreamEndedError
                return found

    def write(self, data: bytes) -> None:
        """
        Write all bytes.

        Raises:
            StreamEndedError: The peer is gone, or reads nothing for 30 seconds.
        """
        try:
            written = os.write(self._outgoing, data)
            if written < len(data):
                view = memoryview(data)
                while written < len(data):
                    written += os.write(self._outgoing, view[written:])
        except OSError:
            raise StreamEndedError from None

    def is_closed_within(self, seconds: float) -> bool:
        """Wait, and return whether the peer closed the stream meanwhile."""
        waiting = poll()
        waiting.register(self._incoming, POLLRDHUP)
        return bool(waiting.poll(seconds * 1000))


Handler: TypeAlias = Callable[[Stream], None]
"""Serves one connection until it ends; may raise `StreamEndedError`."""

Log: TypeAlias = Callable[[str], None]
"""Writes one line for the user."""


class Listener:
    """
    Listening Unix socket. Each connection has a thread.

    Connections of other users than this one and root are closed unserved.

    Args:
        listening: Listening socket of type SOCK_STREAM.

        path: Path to remove at the end; None if another program owns the socket.

        log: Gets a line for each refused connection and each failed handler.

    Attributes:
        path: Path of the socket; None if another program owns it.
    """

    def __init__(
        self, listening: socket.socket, path: Path | None, *, log: Log
    ) -> None:
        self._listening = listening
        self.path = path
        self._inode = os.stat(path).st_ino if path else 0
        self._log = log
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._processes: Counter[int] = Counter()
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._is_stopping = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def serve(self, handler: Handler) -> None:
        """
        Serve connections until `stop` is called; end within about 10 seconds of it.

        Running requests are answered before their connections end.
        """
        while True:
            ready, _, _ = select([self._listening.fileno(), self._wake], [], [])
            if self._wake in ready:
                if self._is_stopping:
                    break
                os.read(self._wake, 512)
                continue
            try:
                connection, _ = self._listening.accept()
            except OSError:  # no descriptor is left: the socket stays ready
                select([self._wake], [], [], _RETRY_SECONDS)
                continue
            self._begin(connection, handler)
        self._end_connections()

    def stop(self) -> None:
        """Make `serve` return. Any thread, and a signal handler, may call it."""
        self._is_stopping = True
        with suppress(OSError):
            os.write(self._woken, b"\0")

    def close(self) -> None:
        """Close the socket, and remove its path."""
        self._listening.close()
        if self.path is not None:
            with suppress(OSError):
                if os.stat(self.path).st_ino == self._inode:
                    self.path.unlink()
            self.path = None
        for descriptor in (self._wake, self._woken):
            with suppress(OSError):
                os.close(descriptor)

    def _begin(self, connection: socket.socket, handler: Handler) -> None:
        """Start the thread of a connection, or refuse it."""
        peer = peer_of(connection)
        with self._lock:
            reason = self._refusal(peer)
            if reason:
                self._log(f"connection of {described(peer)} refused: {reason}")
                connection.close()
                return
            thread = threading.Thread(
                target=self._run, args=(connection, peer, handler), daemon=True
            )
            self._open[connection] = thread
            self._processes[peer.pid] += 1
        try:
            thread.start()
        except RuntimeError:  # no memory or no more threads
            self._log(f"connection of {described(peer)} refused: no thread can start")
            self._forget(connection, peer)

    def _refusal(self, peer: Peer) -> str:
        if peer.uid not in {0, os.geteuid()}:
            return "the program belongs to another user"
        if len(self._open) >= MOST_CONNECTIONS:
            return f"{MOST_CONNECTIONS} connections are open"
        if self._processes[peer.pid] >= MOST_OF_PROCESS:
            return f"the process has {MOST_OF_PROCESS} connections"
        return ""

    def _run(self, connection: socket.socket, peer: Peer, handler: Handler) -> None:
        try:
            timeout = struct.pack("ll", _FRAME_SECONDS, 0)
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                connection.setsockopt(socket.SOL_SOCKET, option, timeout)
            descriptor = connection.fileno()
            handler(Stream(descriptor, descriptor, peer))
        except StreamEndedError:
            pass
        except Exception as error:
            # Its text may hold a secret.
            self._log(f"connection of {described(peer)} failed: {type(error).__name__}")
        finally:
            self._forget(connection, peer)

    def _forget(self, connection: socket.socket, peer: Peer) -> None:
        with self._lock:
            self._open.pop(connection, None)
            self._processes[peer.pid] -= 1
            if not self._processes[peer.pid]:
                del self._processes[peer.pid]
            connection.close()

    def _end_connections(self) -> None:
        with self._lock:
            threads = list(self._open.values())
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def listen(path: Path | None, *, log: Log) -> Listener:
    """
    Listen on the socket that systemd passes, or else on a new one at *path*.

    The new socket has mode 0600, in a folder of mode 0700, which is made.

    Raises:
        ConfigurationError: There is no path, it can't be used, another program listens
            on it, or systemd passes something else than one listening Unix socket.
        UnsafeFileModeError: Other users have access to the folder.
    """
    inherited = _inherited()
    if inherited is not None:
        return Listener(inherited, None, log=log)
    if path is None:
        raise ConfigurationError(
            "XDG_RUNTIME_DIR is not set, so there is no default socket. Pass --socket "
            "PATH.",
            field="socket",
        )
    return Listener(_bind(path), path, log=log)


def default_path(name: str) -> Path | None:
    """Return ``$XDG_RUNTIME_DIR/ferrohsm/NAME.sock``, or None without that variable."""
    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(folder, "ferrohsm", f"{name}.sock") if folder else None


@contextmanager
def stopped_by_signals(listener: Listener) -> Iterator[None]:
    """
    Make SIGTERM, SIGINT and SIGHUP stop a listener. For the main thread.

    SIGHUP stays ignored if it was, as by nohup(1).
    """

    def stop(number: int, frame: FrameType | None) -> None:
        listener.stop()

    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stdio() -> Stream:
    """
    Return the stream of standard input and output, for a program that started this one.

    What is printed afterwards goes to standard error.
    """
    incoming, outgoing = os.dup(0), os.dup(1)
    with open(os.devnull, "rb") as null:
        os.dup2(null.fileno(), 0)
    os.dup2(2, 1)
    pid = os.getppid()
    return Stream(incoming, outgoing, Peer(os.getuid(), pid, _program(pid)))


def peer_of(connection: socket.socket) -> Peer:
    """Return the process at the other end of a connected Unix socket."""
    raw = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
    )
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return Peer(uid, pid, _program(pid))


def described(peer: Peer) -> str:
    """Return a peer's program, process and user for a log line."""
    return f"{peer.program or 'a program'} (PID {peer.pid}, UID {peer.uid})"


def _program(pid: int) -> str:
    """Return the name of a process's program file, or its command name."""
    with suppress(OSError):
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))[:64]
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    return ""


def _inherited() -> socket.socket | None:
    """Return the socket of socket activation (sd_listen_fds(3)), or None."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = os.environ.get("LISTEN_FDS", "")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    wrong = ConfigurationError(
        "systemd must pass one listening Unix stream socket. Check ListenStream= of "
        "the .socket unit."
    )
    if count != "1":
        raise wrong
    try:
        found = socket.socket(fileno=_FIRST_INHERITED)
    except OSError:
        raise wrong from None
    is_listening = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if (found.family, found.type) != (socket.AF_UNIX, socket.SOCK_STREAM) or (
        not is_listening
    ):
        raise wrong
    found.set_inheritable(False)
    found.setblocking(True)
    return found


def _bind(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigurationError(
            f"socket must be at most {_LONGEST_PATH} bytes, got "
            f"{len(os.fsencode(path))}. Pass --socket PATH with a shorter one.",
            field="socket",
        )
    try:
        make_private_folder(path.parent)
        with _locked(path.parent):
            _remove_stale(path)
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            # bind(2) gives the file the mode of the descriptor.
            os.fchmod(listening.fileno(), 0o600)
            listening.bind(os.fspath(path))
            listening.listen(128)
    except OSError as error:
        raise ConfigurationError(
            f"socket {path} can't be made ({error.strerror}).", field="socket"
        ) from None
    return listening


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_stale(path: Path) -> None:
    """Remove a socket on which nobody listens any more."""
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise ConfigurationError(f"{path} exists and is not a socket.", field="socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except (TimeoutError, BlockingIOError):
            pass  # its queue is full, so somebody listens
    raise ConfigurationError(
        f"Another program listens on {path}. Stop it, or pass another --socket PATH.",
        field="socket",
    )
