# SPDX-License-Identifier: MIT
"""
PKCS#11 client that speaks p11-kit's RPC protocol, written apart from the product.

It sends what p11-kit's client filters out: mechanisms of PKCS#11 3.x, and bad bytes.
"""

import socket
import struct
from pathlib import Path
from typing import Any, Final

HANDSHAKE: Final = b"PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1"
OK: Final = 0

Attributes = list[tuple[int, bytes]]
"""Attributes with their values as they travel, from `flag`, `number` and `data`."""


class CallError(Exception):
    """A call that failed, with its CK_RV."""

    def __init__(self, rv: int) -> None:
        super().__init__(f"CK_RV {rv:#x}")
        self.rv = rv


def number(value: int) -> bytes:
    """Return a CK_ULONG in an attribute, with its length."""
    return struct.pack(">IQ", 8, value)


def flag(value: bool) -> bytes:
    """Return a CK_BBOOL in an attribute, with its length."""
    return struct.pack(">IB", 1, value)


def data(value: bytes) -> bytes:
    """Return bytes in an attribute, with their length."""
    return struct.pack(">II", len(value), len(value)) + value


def template(attributes: Attributes) -> bytes:
    """Return a template."""
    parts = [struct.pack(">IB", kind, 1) + value for kind, value in attributes]
    return struct.pack(">I", len(parts)) + b"".join(parts)


def mechanism(kind: int, parameter: bytes | None = None) -> bytes:
    """Return a mechanism as version 2 has it; its parameter begins with a flag."""
    return struct.pack(">I", kind) + (b"" if parameter is None else parameter)


def block(value: bytes) -> bytes:
    """Return bytes with their length."""
    return struct.pack(">I", len(value)) + value


def array(value: bytes) -> bytes:
    """Return bytes as an argument."""
    return b"\1" + block(value)


def ulong(value: int) -> bytes:
    """Return a CK_ULONG as an argument."""
    return struct.pack(">Q", value)


class Client:
    """
    Connection of one program.

    Args:
        path: Socket of the server.

        version: Version to offer.
    """

    def __init__(self, path: Path, version: int = 2) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        self.socket.sendall(bytes((version,)))
        self.version = self.receive(1)[0]

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *raised: object) -> None:
        self.socket.close()

    def receive(self, length: int) -> bytes:
        """Receive exactly *length* bytes; fewer if the server closes."""
        found = b""
        while len(found) < length and (part := self.socket.recv(length - len(found))):
            found += part
        return found

    def frame(self, body: bytes, options: bytes = b"") -> bytes:
        """Send a frame, and return the body of the response."""
        head = struct.pack(">III", 7, len(options), len(body))
        self.socket.sendall(head + options + body)
        code, _, length = struct.unpack(">III", self.receive(12))
        assert code == 7
        return self.receive(length)

    def call(self, call: int, signature: str, arguments: bytes = b"") -> bytes:
        """
        Make a call.

        Returns:
            The values of the response.

        Raises:
            CallError: The response is an error.
        """
        body = struct.pack(">I", call) + block(signature.encode()) + arguments
        answer = self.frame(body)
        found, length = struct.unpack_from(">II", answer)
        rest = answer[8 + length :]
        if not found:
            raise CallError(struct.unpack(">Q", rest)[0])
        assert found == call
        return rest

    def initialize(self) -> None:
        """Begin."""
        self.call(1, "ayyay", array(HANDSHAKE) + b"\0" + array(b"\0"))

    def open_session(self, *, is_writable: bool = True) -> int:
        """Open a session."""
        flags = 0x4 | (0x2 if is_writable else 0)
        return first(self.call(10, "uu", ulong(0) + ulong(flags)))

    def log_in(self, session: int, pin: bytes) -> None:
        """Log the user in."""
        self.call(18, "uuay", ulong(session) + ulong(1) + array(pin))

    def find(self, session: int, attributes: Attributes) -> list[int]:
        """Return the handles of all objects with these attributes."""
        self.call(26, "uaA", ulong(session) + template(attributes))
        answer = self.call(27, "ufu", ulong(session) + struct.pack(">I", 1000))
        self.call(28, "u", ulong(session))
        _, count = struct.unpack_from(">BI", answer)
        return list(struct.unpack_from(f">{count}Q", answer, 5))

    def sign(self, session: int, how: bytes, key: int, message: bytes) -> bytes:
        """Sign a message."""
        self.call(42, "uMu", ulong(session) + how + ulong(key))
        room = struct.pack(">I", 65_536)
        return unpacked(self.call(43, "uayfy", ulong(session) + array(message) + room))


def first(answer: bytes) -> int:
    """Return the first CK_ULONG of a response."""
    value: int = struct.unpack_from(">Q", answer)[0]
    return value


def unpacked(answer: bytes) -> bytes:
    """Return the bytes of a response that has them."""
    has, length = struct.unpack_from(">BI", answer)
    assert has == 1
    return answer[5 : 5 + length]


def attributes_of(answer: bytes) -> tuple[dict[int, Any], int]:
    """Return the raw attributes of a response, None where there is no value, and rv."""
    (count,) = struct.unpack_from(">I", answer)
    at = 4
    found: dict[int, Any] = {}
    for _ in range(count):
        kind, has = struct.unpack_from(">IB", answer, at)
        at += 5
        found[kind] = None
        if has:
            (length,) = struct.unpack_from(">I", answer, at)
            at += 4
            if kind in {0x00, 0x100, 0x121, 0x161, 0x166}:
                found[kind], width = struct.unpack_from(">Q", answer, at)[0], 8
            elif length == 1:
                found[kind], width = answer[at], 1
            else:
                found[kind], width = answer[at + 4 : at + 4 + length], 4 + length
            at += width
    return found, struct.unpack_from(">Q", answer, at)[0]
