# SPDX-License-Identifier: MIT
"""Frames between front ends and vault, and operations that arrive in pieces."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core.errors import HSMError
from hsm_core.operations import OPERATIONS, Decapsulate, Operation
from hsm_server.ipc.frames import (
    CHUNK_BYTES,
    HEADER_BYTES,
    MAX_FRAME_BYTES,
    Answer,
    Cancel,
    Chunk,
    Event,
    Hello,
    Purpose,
    Request,
    chunk_head,
    cut,
    packed,
)
from hsm_server.ipc.payloads import pack, unpack_operation
from hsm_server.ipc.requests import Assemblies
from hsm_server.vault.access import Visitor
from tests.server.ipc_support import BACK, FRONT

IDS = st.integers(1, 2**53 - 1)


def unpacked(data: bytes, kinds: Any) -> Any:
    """Return what a frame holds, whose length must be right."""
    length = int.from_bytes(data[:HEADER_BYTES], "big")
    assert length == len(data) - HEADER_BYTES
    return msgspec.msgpack.decode(data[HEADER_BYTES:], type=kinds)


@given(IDS, st.binary(max_size=300))
def test_chunks_without_a_copy(number: int, data: bytes) -> None:
    """What stands before the data of a chunk makes a frame of it."""
    frame = chunk_head(number, len(data)) + data

    assert Chunk(number, data) == unpacked(frame, BACK)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
@pytest.mark.parametrize(
    "kind",
    # An encapsulation is never long.
    [k for k in OPERATIONS if k.route.raw_request and k is not Decapsulate],
)
def test_payloads(kind: type[Operation[Any]], size: int) -> None:
    """Every operation that can have a long field is sent without it, and put back."""
    named = {"key_id": "k"} if "key_id" in kind.__struct_fields__ else {}
    others = {"signature": b"s", "mac": b"m"}
    fields = {k: v for k, v in others.items() if k in kind.__struct_fields__}
    data = (b"abcdefg" * (size // 7 + 1))[:size]
    operation = kind(**named, **fields, **{kind.route.raw_request: data})

    sent = pack(operation, kind.route.raw_request)
    frame = Request(
        1, Purpose.EXECUTE, Visitor(), sent.packed, bool(sent.field), payload=sent.field
    )
    whole = b"".join(sent.chunks) if sent.field else sent.packed

    assert len(sent.packed) < CHUNK_BYTES + 1024
    assert (size > CHUNK_BYTES) == bool(sent.field)
    assert operation == unpack_operation(frame, whole)


@pytest.mark.parametrize("frame", [Request(1, Purpose.STATUS, Visitor()), Cancel(1)])
def test_a_vault_sends_no_requests(frame: Any) -> None:
    """What only a front end sends is unknown to it."""
    with pytest.raises(msgspec.ValidationError):
        unpacked(packed(frame), FRONT)


@given(st.integers(0, 5 * CHUNK_BYTES))
def test_cutting(size: int) -> None:
    """Pieces and rest are the whole, in order, and none is longer than allowed."""
    data = (b"abcdefg" * (size // 7 + 1))[:size]

    pieces, rest = cut(data)
    found = list(pieces)

    assert data == b"".join([*found, rest])
    assert all(CHUNK_BYTES == len(piece) for piece in found)
    assert (0 if not data else 1) <= len(rest) <= CHUNK_BYTES


def test_the_longest_frames_are_short_enough() -> None:
    """A frame with all that a stranger may put into it can be sent."""
    who = Visitor(
        credential="t" * 8193,
        certificate=b"c" * 128 * 1024,
        address="a" * 128,
        request_id="r" * 128,
    )
    request = Request(
        2**53 - 1, Purpose.EXECUTE, who, b"o" * CHUNK_BYTES, True, "\U0001f511" * 1024
    )

    assert len(packed(request)) < MAX_FRAME_BYTES


@pytest.mark.parametrize(
    "frame",
    [
        Hello(1, "secret"),
        Chunk(1, b"secret"),
        Request(1, Purpose.EXECUTE, Visitor(credential="secret"), b"secret"),
        Cancel(1),
        Answer(1, "secret", b"secret"),
        Event(1, "secret", b"secret"),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_a_frame_shows_nothing_of_itself(frame: Any) -> None:
    """A frame's repr is its type alone."""
    assert f"<{type(frame).__name__}>" == repr(frame)


def test_pieces_in_order() -> None:
    """Pieces of several operations come together, each in its own order."""
    assemblies = Assemblies(100)

    for piece in (b"a", b"b", b"c"):
        assemblies.add(1, piece)
        assemblies.add(2, piece.upper())

    assert b"abcd" == assemblies.complete(1, b"d")
    assert b"ABCD" == assemblies.complete(2, b"D")
    assert 1 not in assemblies


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "complete", "drop"]),
        st.integers(1, 12),
        st.integers(0, 12),
    ),
    max_size=60,
)


@given(STEPS)
def test_accounts(steps: list[tuple[str, int, int]]) -> None:
    """Whatever comes, all that is dropped leaves room for as much as at the start."""
    assemblies = Assemblies(10)
    for name, number, size in steps:
        try:
            match name:
                case "add":
                    assemblies.add(number, b"x" * size)
                case "complete":
                    assert 10 >= len(assemblies.complete(number, b"x" * size))
                case _:
                    assemblies.drop(number)
        except HSMError:
            assert number not in assemblies

    for number in range(1, 13):
        assemblies.drop(number)

    for number in range(21, 29):
        assert 10 == len(assemblies.complete(number, b"y" * 10))
