# SPDX-License-Identifier: MIT
"""Dispatch: from the bytes of a call to a function, and from its result to bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.calls import CALLS, Call
from hsm_cli.interfaces.pkcs11.errors import BufferTooSmallError, CryptokiError, rv_of
from hsm_cli.interfaces.pkcs11.parameters import BARE, Mechanism, read_mechanism
from hsm_cli.interfaces.pkcs11.sessions import OperationKind, Session
from hsm_cli.interfaces.pkcs11.wire import (
    ABSENT,
    CallReader,
    MalformedCallError,
    attribute,
    block,
    uint32,
    ulong,
)
from hsm_core.errors import HSMError

if TYPE_CHECKING:
    from hsm_cli.interfaces.pkcs11.application import Library

FIRST_FLAGGED: Final = 2
"""Protocol version from which on a flag precedes the parameter of a mechanism."""

_HEAD_BYTES: Final = 8
"""Length of the number of a call and of the length of its signature."""

_ON_SLOTS: Final = frozenset(
    {
        "C_GetSlotInfo",
        "C_GetTokenInfo",
        "C_GetMechanismList",
        "C_GetMechanismInfo",
        "C_InitToken",
        "C_InitToken2",
        "C_OpenSession",
        "C_CloseAllSessions",
        "C_WaitForSlotEvent",
    }
)
"""Calls whose first number is a slot or flags, not a session."""

_TAKING_DATA: Final = {
    f"C_{kind.name.capitalize()}{part}": kind
    for kind in (
        OperationKind.ENCRYPT,
        OperationKind.DECRYPT,
        OperationKind.DIGEST,
        OperationKind.SIGN,
        OperationKind.VERIFY,
    )
    for part in ("", "Update")
}
"""Operations by the calls that bring their data."""

_READERS: Final[dict[str, Callable[[CallReader], Any]]] = {
    "u": CallReader.ulong,
    "y": CallReader.byte,
    "ay": CallReader.array,
    "fy": CallReader.capacity,
    "fu": CallReader.capacity,
    "aA": CallReader.template,
    "fA": CallReader.room,
    "z": CallReader.block,
    "s": CallReader.block,
}
_WRITERS: Final[dict[str, Callable[[Any], bytes]]] = {
    "u": ulong,
    "v": bytes,
    "s": block,
    # No mechanism updates its parameter.
    "P": lambda mechanism: b"" if mechanism.parameter is None else b"\0",
    "ay": lambda data: b"\1" + block(data),
    "au": lambda items: b"\1" + uint32(len(items)) + b"".join(map(ulong, items)),
    "aA": lambda pairs: uint32(len(pairs)) + b"".join(attribute(*one) for one in pairs),
}


_DATA: Final = struct.Struct(">QBI")
_ROOM: Final = struct.Struct(">I")
_FLAGGED_KEY: Final = struct.Struct(">QIQ")
_KEY: Final = struct.Struct(">QIIQ")


def _data_and_room(message: bytes, at: int) -> list[Any] | None:
    """Read a session, data and room, as most calls have them; None for another."""
    start = at + _DATA.size
    if len(message) < start:
        return None
    session, has_data, length = _DATA.unpack_from(message, at)
    end = start + length
    if has_data != 1 or len(message) != end + _ROOM.size:
        return None
    (room,) = _ROOM.unpack_from(message, end)
    return [session, message[start:end], 0 if room == ABSENT else room or None]


def _flagged_key(message: bytes, at: int) -> list[Any] | None:
    """Read a session, mechanism without parameter, and key; None for another."""
    if len(message) != at + _FLAGGED_KEY.size:
        return None
    session, kind, key = _FLAGGED_KEY.unpack_from(message, at)
    mechanism = BARE.get(kind)
    return None if mechanism is None else [session, mechanism, key]


def _key(message: bytes, at: int) -> list[Any] | None:
    """Do the same for versions without a flag."""
    if len(message) != at + _KEY.size:
        return None
    session, kind, parameter, key = _KEY.unpack_from(message, at)
    mechanism = BARE.get(kind)
    if mechanism is None or parameter != ABSENT:
        return None
    return [session, mechanism, key]


class Function(msgspec.Struct, frozen=True):
    """
    Function of a call, ready to be called.

    Attributes:
        call: The call.
        readers: Readers of its arguments.
        scan: Reader of them all in their usual form, for the calls that are most; it
            returns None for any other form.
        run: The function; None if it is not supported.
        has_session: Whether the first argument is a session.
        head: Number and signature of the response.
        write: Writer of its results.
    """

    call: Call
    readers: tuple[Callable[[CallReader], Any], ...]
    scan: Callable[[bytes, int], list[Any] | None] | None
    run: Callable[..., Any] | None
    has_session: bool
    head: bytes
    write: Callable[[Any], bytes]


class Dispatcher:
    """
    Functions of the library, for one program.

    Args:
        library: The library.

        version: Version of the protocol, 0 to 2.

        functions: Functions by name. Those of sessions get the session first, the
            others the library.
    """

    def __init__(
        self,
        library: Library,
        version: int,
        functions: Mapping[str, Callable[..., Any]],
    ) -> None:
        self._library = library
        self._is_flagged = version >= FIRST_FLAGGED
        self._scanners = {
            "uayfy": _data_and_room,
            "uMu": _flagged_key if self._is_flagged else _key,
        }
        self._functions = functions
        self._ready: dict[bytes, Function] = {}

    def answer(self, message: bytes, start: int) -> bytes:
        """
        Return the response to a call; every fault is an error response.

        Args:
            message: Its frame.

            start: Where the call begins.
        """
        try:
            return self._answer(message, start)
        except CryptokiError as error:
            self._note(message, start, error.reason)
            return failure(error.rv)
        except HSMError as error:
            return failure(rv_of(error))
        except Exception as error:
            # Its text may hold a secret.
            self._note(message, start, f"A call failed: {type(error).__name__}.")
            return failure(ck.CKR_GENERAL_ERROR)

    def refuse(self, start: bytes) -> bytes:
        """
        Return the response to a call that is too long, and end its operation.

        Args:
            start: First bytes of the call.
        """
        with suppress(CryptokiError):
            call, session = self._session(start, 0)
            kind = _TAKING_DATA.get(call.name)
            if kind is not None:
                session.end(kind)
        return failure(ck.CKR_DATA_LEN_RANGE)

    def _note(self, message: bytes, start: int, text: str) -> None:
        """Print a note, as of the slot that a call is about, or else the first."""
        application = self._library.slots[0]
        with suppress(CryptokiError):
            application = self._session(message, start)[1].application
        application.note(text)

    def _session(self, message: bytes, start: int) -> tuple[Call, Session]:
        """
        Return the session of a call, of which perhaps only the beginning can be read.

        Raises:
            CryptokiError: It has none.
        """
        reader = CallReader(message, start)
        call = CALLS.get(reader.uint32())
        reader.block()
        if call is None or not _has_session(call):
            raise CryptokiError(ck.CKR_SESSION_HANDLE_INVALID)
        return call, self._library.session(reader.ulong())

    def _answer(self, message: bytes, start: int) -> bytes:
        at = start + _HEAD_BYTES
        at += int.from_bytes(message[at - 4 : at], "big")
        head = message[start:at]
        function = self._ready.get(head) or self._prepared(head)
        arguments = function.scan(message, at) if function.scan else None
        if arguments is None:
            reader = CallReader(message, at)
            arguments = [read(reader) for read in function.readers]
            if reader.left:
                raise MalformedCallError
        if function.run is None:
            raise CryptokiError(ck.CKR_FUNCTION_NOT_SUPPORTED)
        if function.has_session:
            arguments[0] = self._library.session(arguments[0])
        else:
            arguments.insert(0, self._library)
        try:
            return function.head + function.write(function.run(*arguments))
        except BufferTooSmallError as error:
            if function.call.response not in {"ay", "au"}:
                raise
            return function.head + b"\0" + uint32(error.length)

    def _prepared(self, head: bytes) -> Function:
        """Return the function of a call, by its number and signature."""
        number = CallReader(head).uint32()
        call = CALLS.get(number)
        if call is None:
            raise CryptokiError(ck.CKR_FUNCTION_NOT_SUPPORTED)
        # Exactly this: a head of a wrong length would hold arguments, and be kept.
        if head[4:] != block(call.request.encode()):
            raise MalformedCallError
        readers = tuple(
            self._mechanism if kind == "M" else _READERS[kind]
            for kind in call.arguments
        )
        function = Function(
            call,
            readers,
            self._scanners.get(call.request),
            self._functions.get(call.name),
            _has_session(call),
            uint32(number) + block(call.response.encode()),
            _writer(call.results),
        )
        self._ready[head] = function
        return function

    def _mechanism(self, reader: CallReader) -> Mechanism | None:
        return read_mechanism(reader, is_flagged=self._is_flagged)


def _has_session(call: Call) -> bool:
    return call.request.startswith("u") and call.name not in _ON_SLOTS


def _writer(kinds: Sequence[str]) -> Callable[[Any], bytes]:
    """Return the writer of what a function returns: None, a value, or several."""
    if not kinds:
        return lambda result: b""
    writers = [_WRITERS[kind] for kind in kinds]
    if len(writers) == 1:
        return writers[0]
    return lambda result: b"".join(
        write(value) for write, value in zip(writers, result, strict=True)
    )


def failure(rv: int) -> bytes:
    """Return an error response."""
    return uint32(0) + block(b"u") + ulong(rv)
