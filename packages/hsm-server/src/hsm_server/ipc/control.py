# SPDX-License-Identifier: MIT
"""
What the supervisor and its children tell each other, over a socket for each child.

The socket keeps messages apart (``SOCK_SEQPACKET``), and a message may carry an open
descriptor: so connections between front ends and vault are made anew as often as either
is started again, and a new one never holds what was meant for an old one.
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

_MOST_BYTES: Final = 128 * 1024
_MOST_DESCRIPTORS: Final = 64


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Base of all messages."""


class Begin(_Message, frozen=True, tag="begin"):
    """
    The first message to a child.

    Its descriptors are the listening sockets for a front end, for the vault a pipe that
    holds the secrets, and for the keeper of TLS the socket for a CA's challenges over
    HTTP and the state in force, if there are such.

    Attributes:
        plan: Settings of the server, packed; see `hsm_server.config.plan`.
        slot: Which child this is, such as ``vault`` or ``front1``.
        metrics: Folder of the shared metrics.
    """

    plan: bytes
    slot: Annotated[str, Meta(max_length=32)]
    metrics: str


class Link(_Message, frozen=True, tag="link"):
    """
    One end of a new connection, as descriptor.

    Attributes:
        uid: User of the process that has the other end.
        slot: Name of that process; its former connection is not used any more.
    """

    uid: int
    slot: Annotated[str, Meta(max_length=32)] = ""


class Serve(_Message, frozen=True, tag="serve"):
    """Accept connections from now on."""


class Reload(_Message, frozen=True, tag="reload"):
    """Read again what may have changed."""


class ResetClock(_Message, frozen=True, tag="reset_clock"):
    """Let tokens expire by the wall clock, though it was set back."""


class UseTLS(_Message, frozen=True, tag="use_tls"):
    """
    Let new connections go by the state in a sealed file, which is the descriptor.

    Attributes:
        serial: Counts what is given out; the answer names it.
    """

    serial: int


class UsingTLS(_Message, frozen=True, tag="using_tls"):
    """That state is in use; or, with an *error*, the one before is."""

    serial: int
    error: Annotated[str, Meta(max_length=4096)] = ""


class Publish(_Message, frozen=True, tag="publish"):
    """
    Give the state of TLS in a sealed file, which is the descriptor, to all front ends.

    Attributes:
        generation: Of the state; the answer names it.
    """

    generation: int


class Published(_Message, frozen=True, tag="published"):
    """All front ends use a state; or, with an *error*, none does."""

    generation: int
    error: Annotated[str, Meta(max_length=4096)] = ""


class KeySet(_Message, frozen=True, tag="key_set"):
    """
    What came of fetching the keys of tokens, or those of a provider.

    Attributes:
        data: The JWK Set as it was fetched; None if it is the one of before, or if
            there is a problem.
        problem: Why it could not be fetched, or nothing.
        is_providers: Whether they are those of the provider of OpenID Connect.
    """

    data: Annotated[bytes, Meta(max_length=64 * 1024)] | None = None
    problem: Annotated[str, Meta(max_length=4096)] = ""
    is_providers: bool = False


class Stop(_Message, frozen=True, tag="stop"):
    """
    Finish what is in flight, and end.

    Attributes:
        seconds: How long that may take.
    """

    seconds: float


class Beat(_Message, frozen=True, tag="beat"):
    """
    Are you there? It is answered with the same.

    Attributes:
        is_linked: Whether this side has a connection to the vault, if it needs one.
    """

    is_linked: bool = True


class Ready(_Message, frozen=True, tag="ready"):
    """The child has begun; a front end is told to serve when everybody has."""


class Failed(_Message, frozen=True, tag="failed"):
    """
    The child can't begin, and ends.

    Attributes:
        message: A sentence for people.
        status: Exit status that the server should end with.
    """

    message: Annotated[str, Meta(max_length=4096)]
    status: int


class Reloaded(_Message, frozen=True, tag="reloaded"):
    """What was read again is in force; or, with an *error*, what was before."""

    error: Annotated[str, Meta(max_length=4096)] = ""


FromSupervisor: TypeAlias = (
    Begin
    | Link
    | UseTLS
    | Serve
    | Reload
    | ResetClock
    | Published
    | KeySet
    | Stop
    | Beat
)
FromChild: TypeAlias = (
    Ready | Serve | Failed | Reloaded | UsingTLS | Publish | KeySet | Beat
)

_ENCODER: Final = msgspec.msgpack.Encoder()


class ControlLostError(Exception):
    """The other side of a control socket is gone."""


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

        messages: Type of the messages that may come, a union.

        on_message: Is given each message with its descriptors.

        on_lost: Is called when the other side is gone.
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
        Send a message; who does not read what they are told is lost.

        Messages are few and small, so that the kernel always has room for them but
        where the other side has stopped.
        """
        if not self._is_open:
            return
        try:
            socket.send_fds(self._socket, [_ENCODER.encode(message)], descriptors)
        except (BlockingIOError, InterruptedError):
            return
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
