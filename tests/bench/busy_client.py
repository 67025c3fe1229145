# SPDX-License-Identifier: MIT
"""
A busy client in a process of its own, the same for every server that is measured.

The first line of its standard input is a `Job` in JSON. It prints ``ready`` when it has
warmed up. Each further line is a number of requests; it sends them over its kept
connections, and prints the seconds that they took.
"""

import asyncio
import json
import ssl
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import aiohttp

_WARM_UP = 50


async def main(job: Mapping[str, Any]) -> None:
    """Warm up, and work as often as a number of requests comes."""
    context = ssl.create_default_context(cafile=job["bundle"])
    context.load_cert_chain(job["certificate"], job["private_key"])
    connections = job["connections"]
    connector = aiohttp.TCPConnector(limit=connections, ssl=context)
    base = f"https://127.0.0.1:{job['port']}"
    body = json.dumps(job["body"]).encode()
    headers = {
        "Authorization": f"Bearer {job['token']}",
        "Content-Type": "application/json",
    }
    async with aiohttp.ClientSession(base, connector=connector) as client:

        async def post(left: Iterator[int]) -> None:
            for _ in left:
                async with client.post(job["path"], data=body, headers=headers) as got:
                    await got.read()
                    got.raise_for_status()

        async def post_everywhere(times: int) -> None:
            left = iter(range(times))
            await asyncio.gather(*(post(left) for _ in range(connections)))

        await post_everywhere(_WARM_UP * connections)
        _tell("ready")
        for line in sys.stdin:
            began = time.perf_counter()
            await post_everywhere(int(line))
            _tell(str(time.perf_counter() - began))


def _tell(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.stdin.readline())))
