# SPDX-License-Identifier: MIT
"""
Parser of the ClientHello, before OpenSSL.

It runs only while a challenge is pending, to select the certificate. It trusts nothing,
and leaves malformed messages to OpenSSL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAX_HELLO_BYTES: Final = 16 * 1024
"""Maximum length of a parsed ClientHello."""

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _ALPN = 0, 16
_HOST_NAME: Final = 0
_MAX_RECORD: Final = 16384
_VERSION_AND_RANDOM: Final = 2 + 32


class MalformedHelloError(ValueError):
    """The message is not a valid ClientHello."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """
    Parsed ClientHello.

    Attributes:
        server_name: Host name, lower case, or empty.
        protocols: Application protocols, in the client's order.
    """

    server_name: str
    protocols: tuple[bytes, ...]


class _Reader:
    """Reader of a byte string."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, length: int) -> bytes:
        """Take this many bytes."""
        taken = self._data[self._at : self._at + length]
        if len(taken) != length:
            raise MalformedHelloError
        self._at += length
        return taken

    def number(self, length: int) -> int:
        """Take a big-endian number of so many bytes."""
        return int.from_bytes(self.take(length), "big")

    def vector(self, length: int) -> bytes:
        """Take what is preceded by its own length, in so many bytes."""
        return self.take(self.number(length))


def read_hello(data: bytes) -> ClientHello | None:
    """
    Read the beginning of what a client has sent.

    Returns:
        What it asks for, or None as long as not all has arrived.

    Raises:
        MalformedHelloError: It begins with something else.

    Standard:
        RFC 8446, sections 4.1.2 and 5.1; RFC 6066, section 3; RFC 7301, section 3.1.
    """
    message = _message(data)
    if message is None:
        return None
    reader = _Reader(message)
    reader.take(_VERSION_AND_RANDOM)
    reader.vector(1)  # session id
    reader.vector(2)  # cipher suites
    reader.vector(1)  # compression methods
    extensions = dict(_extensions(_Reader(reader.vector(2)))) if reader else {}
    if reader:
        raise MalformedHelloError
    return ClientHello(
        server_name=_server_name(extensions.get(_SERVER_NAME)),
        protocols=_protocols(extensions.get(_ALPN)),
    )


def _message(data: bytes) -> bytes | None:
    """Return the body of the first handshake message, joined from its records."""
    stream, at = b"", 0
    while True:
        if len(stream) >= 4:
            if stream[0] != _CLIENT_HELLO:
                raise MalformedHelloError
            end = 4 + int.from_bytes(stream[1:4], "big")
            if end > MAX_HELLO_BYTES:
                raise MalformedHelloError
            if len(stream) >= end:
                return stream[4:end]
        head = data[at : at + 5]
        if head[:1] and head[0] != _HANDSHAKE:
            raise MalformedHelloError
        if len(head) < 5:
            return None
        length = int.from_bytes(head[3:5], "big")
        if not 0 < length <= _MAX_RECORD:
            raise MalformedHelloError
        stream += data[at + 5 : at + 5 + length]
        if len(data) < at + 5 + length:
            return None
        at += 5 + length


def _extensions(reader: _Reader) -> Iterator[tuple[int, bytes]]:
    seen = set()
    while reader:
        kind = reader.number(2)
        if kind in seen:
            raise MalformedHelloError
        seen.add(kind)
        yield kind, reader.vector(2)


def _server_name(extension: bytes | None) -> str:
    if extension is None:
        return ""
    names = _Reader(_whole(extension, 2))
    while names:
        kind, name = names.number(1), names.vector(2)
        if kind == _HOST_NAME:
            return _text(name)
    return ""


def _text(name: bytes) -> str:
    try:
        return name.decode("ascii").lower()
    except UnicodeDecodeError:
        raise MalformedHelloError from None


def _protocols(extension: bytes | None) -> tuple[bytes, ...]:
    if extension is None:
        return ()
    reader, names = _Reader(_whole(extension, 2)), []
    while reader:
        names.append(reader.vector(1))
    return tuple(names)


def _whole(extension: bytes, length: int) -> bytes:
    """Return the one vector that an extension consists of."""
    reader = _Reader(extension)
    vector = reader.vector(length)
    if reader:
        raise MalformedHelloError
    return vector
