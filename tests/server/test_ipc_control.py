# SPDX-License-Identifier: MIT
"""Messages between supervisor and child, over a socket for each child."""

import asyncio
import os
import socket
import time

import msgspec
import pytest

from hsm_server.ipc.control import Beat, Control, FromChild, Publish
from hsm_server.processes.child import Pulse
from hsm_server.system.secret_handover import read_sealed, seal


async def test_what_was_said_last_is_heard() -> None:
    """Also of one that ended without reading what it was told."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    heard: list[tuple[FromChild, bytes]] = []
    lost = asyncio.Event()

    def take(message: FromChild, descriptors: list[int]) -> None:
        heard.append((message, b"".join(map(read_sealed, descriptors))))
        for descriptor in descriptors:
            os.close(descriptor)

    control: Control[FromChild] = Control(ours, FromChild, take, lost.set)
    control.send(Beat())
    state = seal("state", b"content")
    with theirs:
        socket.send_fds(theirs, [msgspec.msgpack.encode(Publish(7))], [state])
    os.close(state)
    async with asyncio.timeout(60):
        await lost.wait()

    assert [(Publish(7), b"content")] == heard


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"\xc1", id="no MessagePack"),
        pytest.param(b"\x81\xa4type\xa4what", id="unknown"),
        pytest.param(b"\x82\xa4type\xa5ready\xa1\xc1\x01", id="name that is no text"),
        pytest.param(b"\x91" * 5000, id="deep"),
    ],
)
async def test_what_cannot_be_read_ends_it_and_leaves_nothing_open(said: bytes) -> None:
    """A child that says what is no message is lost, and what it sent is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lost = asyncio.Event()
    heard: list[FromChild] = []
    reading, writing = os.pipe()

    def take(message: FromChild, descriptors: list[int]) -> None:
        heard.append(message)

    control: Control[FromChild] = Control(ours, FromChild, take, lost.set)
    socket.send_fds(theirs, [said], [writing])
    os.close(writing)
    with theirs:
        async with asyncio.timeout(60):
            await lost.wait()
    control.close()
    os.set_blocking(reading, False)

    assert not heard
    # The last copy of the writing end is closed, or this would say to try again.
    assert b"" == os.read(reading, 1)
    os.close(reading)


async def test_who_does_not_read_is_lost() -> None:
    """A peer gets every message, or its end: what it missed could have mattered."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lost: list[int] = []
    control: Control[FromChild] = Control(
        ours, FromChild, lambda *_: None, lambda: lost.append(sent)
    )
    sent = 0
    while not lost and sent < 100_000:
        control.send(Beat())
        sent += 1
    theirs.settimeout(60)
    with theirs:
        heard = sum(1 for _ in iter(lambda: theirs.recv(100), b""))

    assert [heard] == lost


async def test_a_busy_loop_lives_and_a_stuck_one_does_not() -> None:
    """A thread tells it twice a second, until the loop has not turned for too long."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(60)
    pulse = Pulse(ours, stuck_seconds=1.5)
    with ours, theirs:
        pulse.start()
        # Nothing but this thread runs the loop, and it is busy here.
        said = [theirs.recv(100), theirs.recv(100)]
        time.sleep(1.5)
        theirs.setblocking(False)
        while True:
            try:
                theirs.recv(100)
            except BlockingIOError:
                break
        time.sleep(1.2)
        with pytest.raises(BlockingIOError):
            theirs.recv(100)
        # It has turned again.
        theirs.settimeout(60)
        await asyncio.sleep(1)
        said.append(await asyncio.to_thread(theirs.recv, 100))

    assert [msgspec.msgpack.encode(Beat())] * 3 == said


def test_a_process_that_closes_lives() -> None:
    """A vault closes after its loop has ended, which may take longer on a slow disk."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(60)

    async def begin() -> None:
        Pulse(ours).start()

    with ours, theirs:
        asyncio.run(begin())
        said = [theirs.recv(100) for _ in range(3)]

    assert [msgspec.msgpack.encode(Beat())] * 3 == said
