# SPDX-License-Identifier: MIT
"""
Control messages between the supervisor and its child processes.

The socket preserves message boundaries (``SOCK_SEQPACKET``), and a message can carry a
file descriptor. So each restart of a front end or of the vault gets new connections
between them, and no connection carries data of an earlier one.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Annotated, Any, Final, Generic, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

T = TypeVar("T")

LONGEST_TEXT: Final = 4096
"""Maximum length of a sentence in a message, in characters."""

_MOST_BYTES: Final = 128 * 1024
_MOST_DESCRIPTORS: Final = 64


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Base of all messages."""


class Begin(_Message, frozen=True, tag="begin"):
    """
    First message to a child process.

    Its descriptors are the listening sockets for a front end, a pipe with the secrets
    for the vault, and for the TLS manager the HTTP challenge socket and the TLS state
    in force, if any.

    Attributes:
        plan: Settings of the server, packed; see `hsm_server.config.plan`.
        slot: Name of the child, such as ``vault`` or ``front1``.
        metrics: Folder of the shared metrics.
    """

    plan: bytes
    slot: Annotated[str, Meta(max_length=32)]
    metrics: str


class Link(_Message, frozen=True, tag="link"):
    """
    One end of a new connection, as a descriptor.

    Attributes:
        uid: User of the process at the other end.
        slot: Name of that process; its former connection is no longer used.
    """

    uid: int
    slot: Annotated[str, Meta(max_length=32)] = ""


class Serve(_Message, frozen=True, tag="serve"):
    """Accept connections from now on."""


class Reload(_Message, frozen=True, tag="reload"):
    """Reload files that may have changed."""


class ResetClock(_Message, frozen=True, tag="reset_clock"):
    """Accept the current wall clock for token expiry, even if it was set back."""


class UseTLS(_Message, frozen=True, tag="use_tls"):
    """
    Use the TLS state in the sealed file, which is the descriptor, for new connections.

    Attributes:
        serial: Number of the distribution, repeated in the response.
    """

    serial: int


class UsingTLS(_Message, frozen=True, tag="using_tls"):
    """The TLS state is in use; with an *error*, the previous one is."""

    serial: int
    error: Annotated[str, Meta(max_length=LONGEST_TEXT)] = ""


class Publish(_Message, frozen=True, tag="publish"):
    """
    Distribute the TLS state in the sealed file (the descriptor) to all front ends.

    Attributes:
        generation: Generation of the state, repeated in the response.
    """

    generation: int


class Published(_Message, frozen=True, tag="published"):
    """All front ends use a state; with an *error*, none does."""

    generation: int
    error: Annotated[str, Meta(max_length=LONGEST_TEXT)] = ""


class Revoked(_Message, frozen=True, tag="revoked"):
    """
    Names of all revoked client certificates, in the sealed file (the descriptor).

    It is sent by a node of a cluster only. A vault that has no room for the descriptor
    asks for it again, with the same message.
    """


class KeySet(_Message, frozen=True, tag="key_set"):
    """
    Result of fetching the keys of an issuer.

    Attributes:
        data: The fetched JWK Set; None if unchanged or in case of a problem.
        problem: Reason of a failure, or empty.
        source: The issuer of access tokens; empty for keys of the server's own tokens,
            `hsm_server.config.settings.CONSOLE_PROVIDER` for the console's provider.
    """

    data: Annotated[bytes, Meta(max_length=64 * 1024)] | None = None
    problem: Annotated[str, Meta(max_length=LONGEST_TEXT)] = ""
    source: Annotated[str, Meta(max_length=256)] = ""


class Alarm(_Message, frozen=True, tag="alarm"):
    """
    An alarm began or ended; front ends report it as degraded health.

    Attributes:
        source: ``tls`` or ``tokens``.
        is_active: Whether it lasts.
    """

    source: Annotated[str, Meta(max_length=32)]
    is_active: bool


class Stop(_Message, frozen=True, tag="stop"):
    """
    Finish requests in flight, and exit.

    Attributes:
        seconds: Time limit.
    """

    seconds: float


class Beat(_Message, frozen=True, tag="beat"):
    """
    Liveness check; the response is the same message.

    Attributes:
        is_linked: Whether this side has a connection to the vault, if it needs one.
    """

    is_linked: bool = True


class Ready(_Message, frozen=True, tag="ready"):
    """The child process has started; front ends wait for all others."""


class Failed(_Message, frozen=True, tag="failed"):
    """
    The child process cannot start, or cannot go on, and exits.

    Attributes:
        message: A sentence for people.
        status: Exit status of the server, if it has not served yet.
    """

    message: Annotated[str, Meta(max_length=LONGEST_TEXT)]
    status: int


class Outdated(_Message, frozen=True, tag="outdated"):
    """The program is too old for its cluster: the server must drain and stop."""

    message: Annotated[str, Meta(max_length=LONGEST_TEXT)]


class Reloaded(_Message, frozen=True, tag="reloaded"):
    """The reload is complete; with an *error*, the previous state stays in force."""

    error: Annotated[str, Meta(max_length=LONGEST_TEXT)] = ""


FromSupervisor: TypeAlias = (
    Begin
    | Link
    | UseTLS
    | Serve
    | Reload
    | ResetClock
    | Published
    | Revoked
    | KeySet
    | Alarm
    | Stop
    | Beat
)
FromChild: TypeAlias = (
    Ready
    | Serve
    | Failed
    | Outdated
    | Reloaded
    | UsingTLS
    | Publish
    | Revoked
    | KeySet
    | Alarm
    | Beat
)

_ENCODER: Final = msgspec.msgpack.Encoder()


class ControlLostError(Exception):
    """The other end of a control socket is closed."""


def receive_begin(control: socket.socket) -> tuple[Begin, list[int]]:
    """
    Wait for the first message to a child; return it with its descriptors.

    Raises:
        ControlLostError: It does not come.
    """
    control.setblocking(True)
    data, descriptors = _receive(control)
    if not data:
        raise ControlLostError
    return msgspec.msgpack.decode(data, type=Begin), descriptors


class Control(Generic[T]):
    """
    One end of a control socket, on the running event loop.

    Args:
        end: The socket, which this object closes.

        messages: Union type of the messages that may arrive.

        on_message: Called with each message and its descriptors.

        on_lost: Called when the other end is closed.
    """

    def __init__(
        self,
        end: socket.socket,
        messages: Any,
        on_message: Callable[[T, list[int]], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._socket = end
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(messages)
        self._on_message = on_message
        self._on_lost = on_lost
        self._is_open = True
        end.setblocking(False)
        asyncio.get_running_loop().add_reader(end.fileno(), self._read)

    def send(self, message: _Message, *descriptors: int) -> None:
        """
        Send a message; a peer that does not read counts as lost.

        Messages are few and small, so that the kernel always has room for them but
        where the other side has stopped. It must not go on without one, such as of keys
        that are trusted no more; another process gets them all.
        """
        if not self._is_open:
            return
        try:
            socket.send_fds(self._socket, [_ENCODER.encode(message)], descriptors)
        except OSError:
            self._lose()

    def close(self) -> None:
        """Close this end."""
        if self._is_open:
            self._is_open = False
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()

    def drain(self) -> None:
        """Take in what the other side said before it ended."""
        while self._is_open and self._read_one():
            pass

    def _read(self) -> None:
        self._read_one()

    def _read_one(self) -> bool:
        """Read a message, and return whether there was something to read."""
        try:
            data, descriptors = self._receive()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self._lose()
            return False
        try:
            message = self._decoder.decode(data) if data else None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            message = None
        if message is None:
            for descriptor in descriptors:
                os.close(descriptor)
            self._lose()
            return False
        self._on_message(message, descriptors)
        return True

    def _receive(self) -> tuple[bytes, list[int]]:
        try:
            return _receive(self._socket)
        except ConnectionResetError:
            # The other side has ended, and not read all; what it said is still here.
            return _receive(self._socket)

    def _lose(self) -> None:
        if self._is_open:
            self.close()
            self._on_lost()


def _receive(end: socket.socket) -> tuple[bytes, list[int]]:
    """Read a message, and its descriptors, which no program that is run inherits."""
    data, descriptors, _, _ = socket.recv_fds(end, _MOST_BYTES, _MOST_DESCRIPTORS)
    for descriptor in descriptors:
        # Older releases of Python take flags here, such as CLOEXEC, and ignore them.
        os.set_inheritable(descriptor, False)
    return data, descriptors
