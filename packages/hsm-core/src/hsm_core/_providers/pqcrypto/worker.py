# SPDX-License-Identifier: MIT
"""
Child process that signs and generates keys without blocking the parent.

It is started as a script, isolated and without site-packages, and imports nothing but
the standard library and the wheel. Keys reach it through its standard input only; what
it answers leaves through its standard output only. It ends when its input ends. The
format of requests and answers is here, for both sides.
"""

from __future__ import annotations

import os
import runpy
import struct
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hsm_core._providers.pqcrypto.library import SignatureModule

HEADER: Final = struct.Struct(">I")
"""Length before each frame, and before each field of one."""

REQUEST_BYTES: Final = 256 * 1024 * 1024
ANSWER_BYTES: Final = 64 * 1024

GENERATE: Final = b"generate"
SIGN: Final = b"sign"
VERIFY: Final = b"verify"

DONE: Final = b"done"
MISMATCH: Final = b"mismatch"
FAILED: Final = b"failed"


def join(*fields: bytes) -> bytes:
    """Return fields as one body."""
    return b"".join(HEADER.pack(len(field)) + field for field in fields)


def split(body: bytes) -> list[bytes]:
    """
    Return the fields of a body.

    Raises:
        ValueError: A field is cut off.
    """
    fields: list[bytes] = []
    position = 0
    while position < len(body):
        start = position + HEADER.size
        if start > len(body):
            raise ValueError("The length of a field is cut off.")
        position = start + int.from_bytes(body[position:start], "big")
        if position > len(body):
            raise ValueError("A field is cut off.")
        fields.append(body[start:position])
    return fields


def serve(source: int, target: int, module: Callable[[str], SignatureModule]) -> None:
    """
    Answer requests until there are no more, or one can't be understood.

    Args:
        source: File descriptor of requests.

        target: File descriptor of answers.

        module: Returns what the wheel has of an algorithm.
    """
    while header := _read(source, HEADER.size):
        (size,) = HEADER.unpack(header)
        body = _read(source, size) if size <= REQUEST_BYTES else b""
        if not body:
            return
        reply = answer(body, module)
        _write(target, HEADER.pack(len(reply)) + reply)
        # There may be keys in both, and nothing else to do for long.
        del body, reply


def answer(body: bytes, module: Callable[[str], SignatureModule]) -> bytes:
    """Return the answer to one request, of whatever content."""
    try:
        action, name, *arguments = split(body)
        return _compute(action, module(name.decode()), arguments)
    except Exception as error:
        return join(FAILED, type(error).__name__.encode())


def _compute(
    action: bytes, module: SignatureModule, arguments: Sequence[bytes]
) -> bytes:
    if action == GENERATE:
        return join(DONE, *module.keygen())
    key, message, context, *rest = arguments
    if action == SIGN:
        return join(DONE, module.sign(key, message, context or None, None))
    if action == VERIFY:
        (signature,) = rest
        try:
            module.verify(key, message, signature, context or None, None)
        except MemoryError:
            raise
        except Exception:
            return join(MISMATCH)
        return join(DONE)
    raise ValueError("Unknown action.")


def _read(source: int, size: int) -> bytes:
    """Return exactly *size* bytes, or none if the stream ends before."""
    parts = bytearray()
    while len(parts) < size:
        part = os.read(source, min(size - len(parts), 1024 * 1024))
        if not part:
            return b""
        parts += part
    return bytes(parts)


def _write(target: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(target, rest) :]


def _main(parent: str, folder: str, hardening: str) -> None:
    # Nothing of this project can be imported here.
    runpy.run_path(hardening)["harden"](int(parent))
    target = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing else may write answers
    sys.path.append(folder)
    from pqcrypto import sign

    serve(0, target, lambda name: getattr(sign, name))


if __name__ == "__main__":
    _main(*sys.argv[1:])
