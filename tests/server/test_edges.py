# SPDX-License-Identifier: MIT
"""Edges of HTTP and of names that a review found."""

from __future__ import annotations

import json
from io import StringIO

from aiohttp.test_utils import TestClient, TestServer

from hsm_core.factory import open_async
from hsm_core.testing import memory_hsm
from hsm_server.config.settings import LogFormat, LogLevel, ServerSettings
from hsm_server.identity.clock import FlooredClock
from hsm_server.observability.logs import make_logger
from tests.server.support import local_app, mint


async def ask(
    method: str, path: str, headers: dict[str, str], body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    """Send one request to an application over a memory HSM."""
    logger = make_logger(StringIO(), LogLevel.ERROR, LogFormat.JSON)
    with memory_hsm() as gateway:
        app = local_app(open_async(gateway), ServerSettings(), logger, FlooredClock())
        async with TestClient(TestServer(app)) as client:
            answer = await client.request(method, path, headers=headers, data=body)
            lower = {name.lower(): value for name, value in answer.headers.items()}
            return answer.status, lower, await answer.read()


async def test_another_expectation_is_a_problem() -> None:
    """What can't be expected is refused in the form of every other refusal."""
    status, headers, body = await ask("GET", "/healthz", {"Expect": "foo"})

    assert (417, "expectation_failed") == (status, json.loads(body)["code"])
    assert "application/problem+json" == headers["content-type"].split(";")[0]
    assert headers["x-request-id"] == json.loads(body)["request_id"]


async def test_a_body_may_be_announced() -> None:
    """Who asks before sending a body is told to go on."""
    headers = {
        "Authorization": f"Bearer {mint()}",
        "Content-Type": "application/json",
        "Expect": "100-continue",
    }

    status, _, body = await ask("POST", "/api/v1/random", headers, b'{"length":4}')

    assert (200, 8) == (status, len(json.loads(body)["random"]))


async def test_a_query_is_decoded_once() -> None:
    """A percent sign that was escaped stays one."""
    headers = {"Authorization": f"Bearer {mint()}"}

    path = "/api/v1/audit/events?principal=%2541&limit=1"
    status, _, body = await ask("GET", path, headers)

    assert (200, []) == (status, json.loads(body)["items"])
