# SPDX-License-Identifier: MIT
"""Connections: version, frames and their limits."""

from __future__ import annotations

import struct
from typing import Final

from hsm_cli.interfaces.access import Access, LocalProgram
from hsm_cli.interfaces.pkcs11 import finding, general, mechanisms
from hsm_cli.interfaces.pkcs11.application import Library
from hsm_cli.interfaces.pkcs11.dispatch import Dispatcher
from hsm_cli.interfaces.sockets import Stream

HIGHEST_VERSION: Final = 2
"""Highest version of the protocol: p11-kit has it from 0.25.6 on."""

MOST_BODY_BYTES: Final = 2 * 1024 * 1024
"""Longest call that is executed."""

_MOST_SKIPPED_BYTES: Final = 64 * 1024 * 1024
_MOST_OPTION_BYTES: Final = 4096
_CHUNK: Final = 64 * 1024
_HEAD: Final = struct.Struct(">III")
_SHORTEST: Final = _HEAD.size + 8
"""Bytes of a call without options and arguments."""


_FUNCTIONS: Final = {
    **general.FUNCTIONS,
    **finding.FUNCTIONS,
    **mechanisms.FUNCTIONS,
}
"""Functions by name; a call that is not here is not supported."""


def serve(stream: Stream, *accesses: Access) -> None:
    """
    Serve one program until its connection ends.

    Args:
        stream: The connection.

        accesses: HSMs of the interface, one for each slot.

    Raises:
        StreamEndedError: The connection has ended.
    """
    # A client from 0.25.6 on encodes mechanisms in its own way whatever is answered, so
    # the answer must not be lower than what it offers.
    version = min(stream.completed(stream.arrived(1), 1)[0], HIGHEST_VERSION)
    stream.write(bytes((version,)))
    stream.return_from(_SHORTEST)  # p11-kit's client writes a call in three pieces
    peer = stream.peer
    program = LocalProgram(uid=peer.uid, name=peer.program)
    library = Library(accesses, program)
    dispatcher = Dispatcher(library, version, _FUNCTIONS)
    try:
        while True:
            data = stream.arrived(_HEAD.size)
            code, option_bytes, body_bytes = _HEAD.unpack_from(data)
            # The options are the name of the program's module.
            start = _HEAD.size + option_bytes
            if option_bytes > _MOST_OPTION_BYTES or body_bytes > _MOST_SKIPPED_BYTES:
                return
            if body_bytes > MOST_BODY_BYTES:
                data = stream.completed(data, start + _CHUNK)
                _skip(stream, body_bytes - _CHUNK)
                answer = dispatcher.refuse(data[start:])
            else:
                if len(data) != start + body_bytes:
                    data = stream.completed(data, start + body_bytes)
                answer = dispatcher.answer(data, start)
            stream.write(_HEAD.pack(code, 0, len(answer)) + answer)
    finally:
        library.close()


def _skip(stream: Stream, length: int) -> None:
    while length:
        length -= len(stream.completed(b"", min(length, _CHUNK)))
