# SPDX-License-Identifier: MIT
"""What processes of the server say to each other: frames, messages, operations."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

import msgspec

from hsm_core import operations as ops
from hsm_core import wire
from hsm_core.algorithms import Algorithm
from hsm_core.error_records import ErrorRecord, error_from_record, error_record
from hsm_core.errors import InvalidInputError, KeyStateError, OverloadedError
from hsm_core.model import AuditEntry
from hsm_core.operations import Operation, result_type
from hsm_server.ipc.channel import Channel
from hsm_server.ipc.control import (
    Beat,
    Begin,
    Control,
    Failed,
    FromChild,
    FromSupervisor,
    KeySet,
    Link,
    Publish,
    Ready,
    Reload,
    Serve,
    Stop,
    UseTLS,
)
from hsm_server.ipc.frames import (
    HEADER_BYTES,
    PROTOCOL,
    Answer,
    Cancel,
    Chunk,
    Event,
    FromFrontEnd,
    FromVault,
    Hello,
    Purpose,
    Request,
    packed,
)
from hsm_server.ipc.payloads import unpack_operation
from hsm_server.ipc.requests import Assemblies
from hsm_server.vault.access import Visitor
from tests.fuzzing.stored_forms import NothingReadError, wanted
from tests.fuzzing.target import Target

_SECONDS: Final = 5.0
_LONGEST: Final = 64 * 1024

_SIGN: Final = ops.Sign(key_id="release", message=b"m")
_CREATE: Final = ops.CreateKey(algorithm=Algorithm.ED25519, name="n", tags=("a",))
_LIST: Final = ops.ListKeys(per_page=5, cursor="x")


def targets() -> list[Target]:
    """Return a target for each direction of each connection."""
    return [
        _channel("front-end-frames", FromFrontEnd, _from_front_end()),
        _channel("vault-frames", FromVault, _from_vault()),
        _control("child-messages", FromChild, _from_child()),
        _control("supervisor-messages", FromSupervisor, _from_supervisor()),
        _operations(),
        _results(),
        _errors(),
    ]


def _from_front_end() -> list[bytes]:
    visitor = Visitor(credential="a.b.c", address="192.0.2.1", request_id="r")
    sign, create = wire.encode_packed(_SIGN), wire.encode_packed(_CREATE)
    empty = wire.encode_packed(ops.Sign(key_id="k", message=b""))
    frames: list[Any] = [
        Hello(PROTOCOL, "1.0"),
        Request(1, Purpose.EXECUTE, visitor, sign, idempotency_key="k"),
        Chunk(2, create[:9]),
        Request(2, Purpose.EXECUTE, visitor, create[9:], True),
        Request(3, Purpose.REFUSE, visitor, code="malformed", kind="Sign", key_id="k"),
        Cancel(2),
        Chunk(4, b"message"),
        Request(4, Purpose.EXECUTE, visitor, empty, True, payload="message"),
    ]
    alone = [frame for frame in frames if not getattr(frame, "in_chunks", False)]
    return [*map(packed, alone), b"".join(map(packed, frames))]


def _from_vault() -> list[bytes]:
    key_error = error_record(KeyStateError("No.", key_id="k"))
    frames: list[Any] = [
        Hello(PROTOCOL, "1.0"),
        Answer(1, "alice", b"\x80"),
        Answer(2, "alice", error=key_error),
        Chunk(3, b"abc"),
        Event(3, "alice", b"def", True),
    ]
    return [*map(packed, frames), b"".join(map(packed, frames))]


def _channel(name: str, frames: Any, seeds: list[bytes]) -> Target:
    async def receive(data: bytes) -> object:
        end, other = socket.socketpair()
        found: list[Any] = []
        lost = asyncio.get_running_loop().create_future()
        Channel[Any](end, frames, found.extend, lost.set_result)
        with other:
            other.sendall(data)
        async with asyncio.timeout(_SECONDS):
            await lost
        return _put_together(found)

    def read_body(data: bytes) -> object:
        header = len(data).to_bytes(HEADER_BYTES, "big")
        return asyncio.run(receive(header + data))

    return Target(
        name=name,
        readers=(lambda data: asyncio.run(receive(data)), read_body),
        seeds=seeds,
        refusals=(NothingReadError, *_WRONG_OPERATION),
    )


_WRONG_OPERATION: Final = (InvalidInputError, OverloadedError)


def _put_together(frames: list[Any]) -> object:
    """Do with frames what their receiver does before it believes anything."""
    assemblies = Assemblies(_LONGEST)
    for frame in wanted(frames):
        match frame:
            case Chunk():
                assemblies.add(frame.id, frame.data)
            case Request(purpose=Purpose.EXECUTE):
                rest = b"" if frame.payload else frame.operation
                data = assemblies.complete(frame.id, rest)
                assemblies.drop(frame.id)
                unpack_operation(frame, data)
            case Answer(error=ErrorRecord() as record):
                str(error_from_record(record))
            case _:
                pass
    return frames


def _from_child() -> list[bytes]:
    messages: list[Any] = [
        Ready(),
        Serve(),
        Failed("No.", 2),
        Publish(3),
        KeySet(b"{}", source="https://id.example.com"),
        Beat(False),
    ]
    return [msgspec.msgpack.encode(message) for message in messages]


def _from_supervisor() -> list[bytes]:
    messages: list[Any] = [
        Begin(b"plan", "front1", "/run"),
        Link(0, "vault"),
        UseTLS(1),
        Reload(),
        Stop(1.5),
        Beat(),
    ]
    return [msgspec.msgpack.encode(message) for message in messages]


def _control(name: str, messages: Any, seeds: list[bytes]) -> Target:
    async def receive(data: bytes) -> object:
        end, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        loop = asyncio.get_running_loop()
        found: list[Any] = []
        faults: list[dict[str, Any]] = []
        lost = loop.create_future()
        loop.set_exception_handler(lambda _, fault: faults.append(fault))
        control = Control[Any](
            end,
            messages,
            lambda message, _: found.append(message),
            lambda: lost.set_result(None),
        )
        with other:
            other.send(data)
        try:
            async with asyncio.timeout(_SECONDS):
                await lost
        finally:
            control.close()
        for fault in faults:
            raise fault["exception"]
        return wanted(found)

    return Target(
        name=name,
        readers=(lambda data: asyncio.run(receive(data)),),
        seeds=seeds,
        refusals=(NothingReadError,),
    )


def _operations() -> Target:
    seeds = [wire.encode_packed(one) for one in (_SIGN, _CREATE, _LIST)]
    return Target(
        name="packed-operation",
        readers=(wire.decode_packed_operation,),
        seeds=seeds,
    )


def _reader_of(kind: type[Operation[Any]]) -> Callable[[bytes], object]:
    cls = result_type(kind)
    return lambda data: wire.decode_packed(data, cls)


def _results() -> Target:
    kinds: tuple[type[Operation[Any]], ...] = (
        ops.Sign,
        ops.CreateKey,
        ops.ListKeys,
        ops.ListAuditEvents,
        ops.Status,
    )
    empty = ops.KeyPage(items=(), total=0, page=1, per_page=5)
    return Target(
        name="packed-result",
        readers=(
            *map(_reader_of, kinds),
            lambda data: wire.decode_packed(data, AuditEntry),
        ),
        seeds=(wire.encode_packed(empty),),
    )


def _errors() -> Target:
    record = error_record(KeyStateError("No.", key_id="k", version=3))

    def read(data: bytes) -> object:
        error = error_from_record(wire.decode_packed(data, ErrorRecord))
        return wire.encode_json(error_record(error))

    return Target(
        name="packed-error", readers=(read,), seeds=(wire.encode_packed(record),)
    )
