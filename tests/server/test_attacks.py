# SPDX-License-Identifier: MIT
"""Attack classes on bearer tokens: nothing is accepted, and nothing is told."""

import base64
import gzip
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from hsm_core.errors import AuthenticationError
from hsm_server.settings import TokenRules
from hsm_server.tokens import TokenVerifier
from tests.server.attacks import CLASSES, NOT_OFFERED
from tests.server.support import API, SECRET, mint

OWN_TEST = {"CLM-10"}


def is_accepted(verifier: TokenVerifier, token: str) -> bool:
    """Return whether a token is taken, or refused in other words than all are."""
    try:
        verifier.verify(token)
    except AuthenticationError as error:
        return (str(error), error.facts) != ("Authentication failed.", {})
    return True


def test_every_published_class_is_considered(vectors: Callable[[str], Path]) -> None:
    """Each class is expanded here, or named with the reason why it can't be."""
    published = json.loads((vectors("jose") / "jwt_attack_classes.json").read_text())
    ids = {row["id"] for row in published["classes"]}

    assert ids == CLASSES.keys() | NOT_OFFERED.keys() | OWN_TEST


def test_ten_thousand_forgeries_are_refused() -> None:
    """Of all tokens of all classes none is accepted, and all errors are one."""
    verifier = TokenVerifier(SECRET, TokenRules(), time.time)
    tokens = [(name, token) for name, make in CLASSES.items() for token in make()]

    assert is_accepted(verifier, mint())
    assert len(tokens) >= 10_000
    assert [] == [name for name, token in tokens if is_accepted(verifier, token)]


@pytest.mark.parametrize("name", CLASSES)
async def test_a_forgery_gets_the_uniform_answer(api: API, name: str) -> None:
    """Over HTTP: 401, one body, counted, and recorded with the address."""
    sendable = [t for t in CLASSES[name]() if re.fullmatch("[!-~]{1,8192}", t)][:5]
    bodies = set()
    for token in sendable:
        answer = await api.send("GET", "/status", token=token)
        assert 401 == answer.status
        assert "Bearer" == answer.headers["WWW-Authenticate"]
        body = answer.json
        assert body.pop("request_id") == answer.headers["X-Request-Id"]
        bodies.add(json.dumps(body))

    assert 1 == len(bodies)
    metrics = (await api.send("GET", "//metrics", token="")).body.decode()
    assert f"ferrohsm_auth_jwt_failure_total {len(sendable)}.0\n" in metrics
    refused = [e for e in await api.events() if e["kind"] == "Authenticate"]
    assert len(sendable) == len(refused)
    assert {"authentication_failed"} == {e["code"] for e in refused}
    assert {"127.0.0.1"} == {e["caller"]["source_address"] for e in refused}


async def test_a_flood_of_forgeries_is_counted(api: API) -> None:
    """Above the budget of single records the trail holds their number."""
    for _ in range(150):
        await api.send("GET", "/status", token="forged")
    api.hsm._refusals.flush()  # noqa: SLF001 (what closing does)

    events = await api.events()
    single = sum(e["kind"] == "Authenticate" for e in events)
    counted = sum(
        e["detail"]["count"] for e in events if e["kind"] == "system.refusals"
    )
    assert single < 150
    assert 150 == single + counted


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ")],
        [("Authorization", "Bearer  {token}")],
        [("Authorization", "Bearer\t{token}")],
        [("Authorization", "Bearer {token} x")],
        [("Authorization", "Basic {token}")],
        [("Authorization", "{token}")],
        [("Authorization", "Token {token}")],
        [("Authorization", "Bearer {token}"), ("Authorization", "Bearer {token}")],
        [("Authorization", "Bearer {token}"), ("authorization", "Basic eA==")],
        [("Cookie", "access_token={token}")],
        [("X-Access-Token", "{token}")],
    ],
)
async def test_a_token_has_one_place(api: API, headers: list[tuple[str, str]]) -> None:
    """One Authorization header, one space, and nowhere else."""
    token = mint()
    sent = CIMultiDict((name, value.format(token=token)) for name, value in headers)
    async with api.client.get("/api/v1/status", headers=sent) as response:
        assert 401 == response.status


async def test_a_token_in_the_query_is_none(api: API) -> None:
    """A query ends in logs."""
    answer = await api.send("GET", "/status", token="", query=f"access_token={mint()}")

    assert 401 == answer.status


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_has_no_case(api: API, scheme: str) -> None:
    """RFC 9110, section 11.1: schemes are compared without case."""
    headers = {"Authorization": f"{scheme} {mint()}"}
    answer = await api.send("GET", "/status", token="", headers=headers)

    assert 200 == answer.status


def test_wycheproof_signatures(vectors: Callable[[str], Path]) -> None:
    """No broken signature is accepted, whatever key of the set would be the secret."""
    path = vectors("wycheproof") / "json_web_signature_test.json.gz"
    groups: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))[
        "testGroups"
    ]
    keys = [
        g["private"]["k"] for g in groups if g.get("private", {}).get("kty") == "oct"
    ]
    tokens = [test["jws"] for group in groups for test in group["tests"]]
    accepted = []
    for key in keys:
        secret = base64.urlsafe_b64decode(key + "==")
        verifier = TokenVerifier(secret, TokenRules(), time.time)
        accepted += [t for t in tokens if is_accepted(verifier, t)]

    assert len(tokens) > 300
    assert [] == accepted
