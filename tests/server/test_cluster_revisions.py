# SPDX-License-Identifier: MIT
"""The revision in requests and responses of a cluster, over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import psycopg
import pytest

from hsm_core.factory import open_async
from hsm_core.rest import REVISION_HEADER
from hsm_server.vault.local_vault import LocalVault
from tests.core.node_support import Node, nodes_of
from tests.server.ipc_support import OverSockets
from tests.server.support import API, Between, b64, open_api

MOST = 10**15 - 1


@contextlib.asynccontextmanager
async def two_nodes(
    url: str, between: Callable[[], Between] = lambda: LocalVault
) -> AsyncIterator[tuple[API, API, Node]]:
    """Give servers of two nodes; the second one hears of no change by itself."""
    async with contextlib.AsyncExitStack() as stack:
        nodes = await asyncio.to_thread(stack.enter_context, nodes_of(url))
        served = []
        for node in nodes:
            made = between()
            gateway = open_async(node.hsm)
            api = await stack.enter_async_context(
                open_api(gateway=gateway, between=made)
            )
            if isinstance(made, OverSockets):
                stack.callback(made.close)
            served.append(api)
        await asyncio.to_thread(nodes[1].changes.close)
        yield served[0], served[1], nodes[1]


async def listed(api: API, key_id: str, seen: str | None = None) -> str:
    """Return how a node lists a key to a client that has seen a revision."""
    headers = {} if seen is None else {REVISION_HEADER: seen}
    answer = await api.send("GET", "/keys", headers=headers)
    assert 200 == answer.status, answer.body
    (row,) = [row for row in answer.json["items"] if row["key_id"] == key_id]
    return str(row["description"])


@pytest.mark.parametrize("between", [lambda: LocalVault, OverSockets])
async def test_a_node_applies_what_a_client_has_seen(
    database: str, between: Callable[[], Between]
) -> None:
    """Without the number it answers by what it knows; with it, by that change."""
    async with two_nodes(database, between) as (first, second, _):
        key_id = (await first.create("Ed25519", description="old"))["key_id"]
        assert "old" == await listed(second, key_id)
        changed = await first.send(
            "PATCH", f"/keys/{key_id}", body={"description": "new"}
        )
        seen = changed.headers[REVISION_HEADER]

        assert 200 == changed.status, changed.body
        assert "old" == await listed(second, key_id)
        assert "new" == await listed(second, key_id, seen)
        sign = await second.send(
            "POST",
            f"/keys/{key_id}/sign",
            body={"message": b64(b"x")},
            headers={REVISION_HEADER: seen},
        )
        assert 200 == sign.status, sign.body
        assert int(seen) <= int(sign.headers[REVISION_HEADER])
        assert [0, 0] == [first.unexpected, second.unexpected]


async def test_who_is_told(database: str, api: API) -> None:
    """Strangers are not told the revision, and a single machine has none."""
    async with two_nodes(database) as (first, _, _):
        await first.create("Ed25519")
        known = await first.send("GET", "/keys")
        refused = await first.send("GET", "/keys/nobody")
        stranger = await first.send("GET", "/keys", token="wrong")
        health = await first.send("GET", "//readyz")
    alone = await api.send("GET", "/keys", headers={REVISION_HEADER: "7"})

    assert [200, 404] == [known.status, refused.status]
    assert known.headers[REVISION_HEADER] == refused.headers[REVISION_HEADER]
    assert [401, 200, 200] == [stranger.status, health.status, alone.status]
    for answer in (stranger, health, alone):
        assert REVISION_HEADER not in answer.headers


async def test_hostile_numbers(database: str) -> None:
    """A number above all changes is not waited for; what is none is refused."""
    async with two_nodes(database) as (_, second, _):
        key_id = (await second.create("Ed25519", description="old"))["key_id"]
        for text in (
            "-1",
            "",
            "x",
            "1e3",
            "01",
            "1" * 16,
            "٣".encode().decode("latin-1"),
        ):
            for method, path, body in (
                ("GET", f"/keys/{key_id}", None),
                ("POST", f"/keys/{key_id}/sign", {"message": b64(b"x")}),
            ):
                answer = await second.send(
                    method, path, body=body, headers={REVISION_HEADER: text}
                )
                assert (422, "invalid_input") == (answer.status, answer.code), text
                assert REVISION_HEADER.encode() in answer.body
        for text in ("0", str(MOST)):
            assert "old" == await listed(second, key_id, text)
        most = {REVISION_HEADER: str(MOST)}
        many = [
            second.send(
                "POST",
                f"/keys/{key_id}/sign",
                body={"message": b64(b"x")},
                headers=most,
            )
            for _ in range(50)
        ]
        assert {200} == {answer.status for answer in await asyncio.gather(*many)}
        with contextlib.suppress(ConnectionError, OSError):
            long = {REVISION_HEADER: "1" * 10_000_000}
            answer = await second.send("GET", f"/keys/{key_id}", headers=long)
            assert 400 == answer.status
        assert "old" == await listed(second, key_id, "1")
        assert 0 == second.unexpected


async def test_a_node_that_cannot_catch_up(database: str) -> None:
    """It answers 503 within seconds, serves others meanwhile, and then recovers."""
    async with two_nodes(database) as (first, second, node):
        key_id = (await first.create("Ed25519", description="old"))["key_id"]
        assert "old" == await listed(second, key_id)
        body = {"description": "new"}
        changed = await first.send("PATCH", f"/keys/{key_id}", body=body)
        seen = changed.headers[REVISION_HEADER]
        assert int(seen) > node.changes.revision
        with psycopg.connect(database) as blocker:
            blocker.execute("LOCK TABLE cluster, changes IN ACCESS EXCLUSIVE MODE")
            began = time.monotonic()
            waiting = asyncio.create_task(
                second.send("GET", "/keys", headers={REVISION_HEADER: seen})
            )
            assert "old" == await listed(second, key_id)
            answer = await waiting
            seconds = time.monotonic() - began

        assert 503 == answer.status, answer.body
        assert "Retry-After" in answer.headers
        assert 30 > seconds
        assert "new" == await listed(second, key_id, seen)
