# SPDX-License-Identifier: MIT
"""
A busy client in a process of its own: signs over kept connections, and says how fast.

It reads where and how from its arguments, prints ``ready``, waits for a line on its
standard input, works, and prints requests and seconds as JSON::

    isolation_client.py PORT CA-BUNDLE CERT KEY-FILE TOKEN-FILE KEY CONNECTIONS REQUESTS
"""

import asyncio
import base64
import json
import ssl
import sys
import time
from pathlib import Path

import aiohttp

_WARM_UP = 50


async def main(port: str, bundle: str, *words: str) -> None:
    """Warm up, wait for the word, work."""
    certificate, private_key, token, key = words[:4]
    connections, requests = map(int, words[4:])
    body = json.dumps({"message": base64.b64encode(bytes(32)).decode()}).encode()
    headers = {
        "Authorization": f"Bearer {Path(token).read_text()}",
        "Content-Type": "application/json",
    }
    path = f"/api/v1/keys/{key}/sign"
    context = ssl.create_default_context(cafile=bundle)
    context.load_cert_chain(certificate, private_key)
    connector = aiohttp.TCPConnector(limit=connections, ssl=context)
    base = f"https://127.0.0.1:{port}"
    async with aiohttp.ClientSession(base, connector=connector) as client:

        async def sign(times: int) -> None:
            for _ in range(times):
                async with client.post(path, data=body, headers=headers) as answer:
                    await answer.read()
                    answer.raise_for_status()

        async def sign_everywhere(times: int) -> None:
            await asyncio.gather(*(sign(times) for _ in range(connections)))

        await sign_everywhere(_WARM_UP)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        began = time.perf_counter()
        await sign_everywhere(requests // connections)
        seconds = time.perf_counter() - began
    done = {"requests": requests // connections * connections, "seconds": seconds}
    sys.stdout.write(json.dumps(done) + "\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
