# SPDX-License-Identifier: MIT
"""
Service on an event loop: it issues and checks tickets for other programs.

    python3 service.py PORT

takes lines of text: ``issue TEXT`` answers a ticket, ``check TEXT TICKET`` answers
``valid`` or ``invalid``.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import hsm_core
from hsm_core.aio import AsyncKey, AsyncUser
from hsm_core.errors import MacMismatchError


@asynccontextmanager
async def open_user() -> AsyncIterator[AsyncUser]:
    """Give the HSM of a server if there is one, else the one in this folder."""
    if "FERROHSM_ENDPOINT" in os.environ:
        import hsm_client

        async with hsm_client.aio.connect() as user:
            yield user
    else:
        async with hsm_core.aio.open("keys", root="root.key", create=True) as hsm:
            yield hsm.as_user("tickets", roles=["operator"])


async def answer(key: AsyncKey, line: bytes) -> str:
    """Return the answer to one line."""
    match line.split():
        case [b"issue", text]:
            return base64.urlsafe_b64encode(await key.mac(text)).decode()
        case [b"check", text, ticket]:
            try:
                mac = base64.b64decode(ticket, b"-_", validate=True)
                await key.verify_mac(text, mac)
            except (MacMismatchError, binascii.Error):
                return "invalid"
            return "valid"
        case _:
            return "usage: issue TEXT | check TEXT TICKET"


@asynccontextmanager
async def serve(port: int) -> AsyncIterator[int]:
    """Serve on a port of this machine, and give its number."""
    async with open_user() as user:
        key = await user.create("HMAC-SHA-256", name="tickets", exist_ok=True)

        async def talk(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            try:
                while line := await reader.readline():
                    writer.write(f"{await answer(key, line)}\n".encode())
                    await writer.drain()
            except ValueError:
                print("connection closed: line over 64 KiB", file=sys.stderr)
                writer.write(b"error: line over 64 KiB\n")
            writer.close()

        async with await asyncio.start_server(talk, "127.0.0.1", port) as server:
            number: int = server.sockets[0].getsockname()[1]
            yield number


async def main(port: int) -> None:
    """Serve until the program is stopped."""
    async with serve(port) as number:
        print(f"tickets on port {number}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
