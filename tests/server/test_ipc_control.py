# SPDX-License-Identifier: MIT
"""Messages between supervisor and child, over a socket for each child."""

import asyncio
import os
import socket

import msgspec

from hsm_server.ipc.control import Beat, Control, FromChild, Publish
from hsm_server.sealed_memory import read_sealed, seal


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
    async with asyncio.timeout(10):
        await lost.wait()

    assert [(Publish(7), b"content")] == heard
