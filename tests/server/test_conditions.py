# SPDX-License-Identifier: MIT
"""Entity tags of keys, and requests that are conditional on them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.server.support import API, b64, open_api


@pytest.fixture
async def api() -> AsyncIterator[API]:
    """Give a client with a key named k."""
    async with open_api() as opened:
        await opened.create("AES-256-GCM", name="k")
        yield opened


async def _tag(api: API) -> str:
    answer = await api.send("GET", "/keys/k")
    return answer.headers["ETag"]


async def test_a_change_makes_another_tag(api: API) -> None:
    """The tag of a key begins with its generation, wherever it is told."""
    made = await api.create("Ed25519", name="other")
    changed = await api.send("PATCH", "/keys/other", body={"description": "new"})
    described = await api.send("GET", "/keys/other")

    assert (1, 2) == (made["generation"], changed.json["generation"])
    assert '"2"' == changed.headers["ETag"]
    assert described.headers["ETag"].startswith('"2-')


async def test_what_is_known_is_not_sent_again(api: API) -> None:
    """If-None-Match with the tag of what is shown is answered with 304, no body."""
    tag = await _tag(api)
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = await api.send("GET", "/keys/k", headers={"If-None-Match": known})
        assert (304, b"") == (answer.status, answer.body)
        assert tag == answer.headers["ETag"]
        assert "no-store" == answer.headers["Cache-Control"]
    other = await api.send("GET", "/keys/k", headers={"If-None-Match": '"1"'})

    assert 200 == other.status


async def test_a_use_is_shown_to_who_asks_again(api: API) -> None:
    """What is shown of a key changes with its uses, and so does the tag."""
    before = await _tag(api)
    await api.send("POST", "/keys/k/encrypt", body={"plaintext": b64(b"x")})

    answer = await api.send("GET", "/keys/k", headers={"If-None-Match": before})
    assert 200 == answer.status
    assert before != answer.headers["ETag"]
    used = await api.send("POST", "/keys/k/rotate", headers={"If-Match": before})

    assert 200 == used.status


async def test_who_may_not_see_a_key_learns_nothing_of_its_tag(api: API) -> None:
    """A condition is looked at after the policy has spoken."""
    for known in ("*", await _tag(api)):
        answer = await api.send(
            "GET", "/keys/k", token="none", headers={"If-None-Match": known}
        )
        assert 401 == answer.status
        assert "ETag" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "", None),
        ("PATCH", "", {"description": "mine"}),
        ("POST", "/rotate", {}),
        ("POST", "/rollback", {"version": 1}),
        ("POST", "/revoke", {}),
        ("POST", "/suspend", {}),
        ("POST", "/resume", {}),
        ("POST", "/activate", {}),
        ("PUT", "/rotation", {"max_age_days": 9}),
        ("POST", "/cancel-destroy", {}),
        ("POST", "/hold", {"reason": "court"}),
        ("POST", "/release", {"reason": "court"}),
        (
            "POST",
            "/retention/extend",
            {"version": 1, "until": "2099-01-01T00:00:00Z"},
        ),
    ],
)
async def test_no_change_is_made_to_another_generation(
    api: API, method: str, path: str, body: object
) -> None:
    """Every change of a key keeps to If-Match; what it refuses is in the trail."""
    tag = await _tag(api)
    await api.send("POST", "/keys/k/rotate", body={})
    before = await api.send("GET", "/keys/k")

    answer = await api.send(
        method, f"/keys/k{path}", body=body, headers={"If-Match": tag}
    )

    assert (412, "precondition_failed") == (answer.status, answer.code)
    assert before.body == (await api.send("GET", "/keys/k")).body
    event = next(e for e in await api.events() if e.get("code") != "ok")
    assert "precondition_failed" == event["code"]
    assert before.json["key_id"] == event["key_id"]


@pytest.mark.parametrize(
    "condition", ['"1"', "*", None], ids=["generation", "any", "none"]
)
async def test_a_change_of_what_was_seen_is_made(
    api: API, condition: str | None
) -> None:
    """The generation in quotes will do, and the tag that was given."""
    sent = {"If-Match": condition or await _tag(api)}

    answer = await api.send("POST", "/keys/k/rotate", headers=sent)

    assert (200, '"2"') == (answer.status, answer.headers["ETag"])


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ('W/"1"', 412),
        ('"one"', 412),
        ('"01"', 412),
        ('"9999999999999999999"', 412),
        ('"1-0"', 412),
        ("1", 422),
        ("", 422),
        ('"1", "2"', 422),
        ('"1', 422),
        ('w/"1"', 422),
        ("**", 422),
    ],
)
async def test_a_condition_that_is_none_of_ours_changes_nothing(
    api: API, condition: str, status: int
) -> None:
    """A tag that we never gave matches nothing; what is no tag is refused."""
    answer = await api.send("POST", "/keys/k/rotate", headers={"If-Match": condition})

    assert status == answer.status
    assert '"1-' == (await _tag(api))[:3]


@pytest.mark.parametrize(
    ("method", "path", "body", "header"),
    [
        ("POST", "/keys", {"algorithm": "Ed25519"}, "If-Match"),
        ("GET", "/keys/k", None, "If-Match"),
        ("POST", "/keys/k/encrypt", {"plaintext": ""}, "If-Match"),
        ("POST", "/random", {"length": 1}, "If-Match"),
        ("POST", "/keys/k/rotate", {}, "If-None-Match"),
        ("DELETE", "/keys/k", None, "If-None-Match"),
    ],
)
async def test_a_condition_that_nothing_keeps_to_is_refused(
    api: API, method: str, path: str, body: object, header: str
) -> None:
    """Nobody believes a condition kept that was not looked at."""
    answer = await api.send(method, path, body=body, headers={header: '"1"'})

    assert (422, "invalid_input") == (answer.status, answer.code)
    assert header == answer.json["facts"]["field"]
    assert '"1-' == (await _tag(api))[:3]


async def test_of_many_who_saw_the_same_one_is_served(api: API) -> None:
    """Of changes at one time, under one condition, one is made."""
    answers = await asyncio.gather(
        *(
            api.send("POST", "/keys/k/rotate", headers={"If-Match": '"1"'})
            for _ in range(12)
        )
    )

    assert [200, *[412] * 11] == sorted(answer.status for answer in answers)
    assert '"2-' == (await _tag(api))[:3]
