# SPDX-License-Identifier: MIT
"""Dual control over REST: 202, the approval, and the same request again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hsm_core import consent, wire
from hsm_core.error_records import ErrorRecord, error_from_record, error_record
from hsm_core.errors import ApprovalRequiredError
from hsm_core.factory import open_async
from hsm_core.operations import ApprovalInfo, CreateKey
from hsm_core.policies import parse_policy
from hsm_core.rest import APPROVAL_HEADER
from hsm_core.settings import PolicyProfile, Settings
from hsm_core.testing import caller, memory_hsm
from tests.server.support import API, Answer, b64, claims, mint, open_api

CREATE = {"algorithm": "ML-KEM-768", "name": "agreed"}
STRICT = Settings(policy_profile=PolicyProfile.STRICT, approval_requests=2)
SIGNING = """
version: 1
extends: default
rules:
  - name: signing
    effect: require-approval
    match: {operations: [Sign]}
"""


@pytest.fixture
async def api() -> AsyncIterator[API]:
    """Give a client over an HSM under the strict profile."""
    with memory_hsm(settings=STRICT) as hsm:
        async with open_api(gateway=open_async(hsm)) as opened:
            yield opened


async def send(
    api: API, who: str, method: str, path: str, body: object = None, **facts: Any
) -> Answer:
    """Send a request as somebody who may do everything."""
    token = mint(claims(sub=who))
    return await api.send(method, path, body=body, token=token, **facts)


async def approve(api: API, path: str) -> Answer:
    """Approve what is shown, as bob."""
    shown = await send(api, "bob", "GET", path)
    body = {"digest": shown.json["digest"]}
    return await send(api, "bob", "POST", f"{path}/approve", body)


async def test_from_the_request_to_the_key(api: API) -> None:
    """What needs consent answers 202 with the approval, and is done after it."""
    first = await send(api, "ann", "POST", "/keys", CREATE)
    again = await send(api, "ann", "POST", "/keys", CREATE)
    asked = wire.decode_json(first.body, ApprovalInfo)

    assert (202, "application/json") == (first.status, first.headers["Content-Type"])
    assert f"/api/v1/approvals/{asked.approval_id}" == first.headers["Location"]
    assert first.body == again.body
    assert asked.digest == consent.shown_sha256(asked.salt, asked.operation)
    path = f"/approvals/{asked.approval_id}"
    shown = await send(api, "bob", "GET", path)
    assert first.json == shown.json
    listed = await send(api, "bob", "GET", "/approvals", query="states=pending")
    assert [first.json] == listed.json["items"]

    grant = {"digest": asked.digest, "comment": "as agreed"}
    granted = await send(api, "bob", "POST", f"{path}/approve", grant)
    assert (200, "granted") == (granted.status, granted.json["state"])
    done = await send(api, "ann", "POST", "/keys", CREATE)
    assert 201 == done.status
    used = await send(api, "bob", "GET", path)
    assert "consumed" == used.json["state"]
    assert 0 == api.unexpected


async def test_refusals(api: API) -> None:
    """O-01, AP-01, AP-12: one's own, another's digest, a second word, the end."""
    asked = (await send(api, "ann", "POST", "/keys", CREATE)).json
    path = f"/approvals/{asked['approval_id']}"

    seen = {"digest": asked["digest"]}
    blind = await send(api, "bob", "POST", f"{path}/approve", {})
    own = await send(api, "Ann", "POST", f"{path}/approve", seen)
    stale = await send(api, "bob", "POST", f"{path}/approve", {"digest": "00" * 32})
    silent = await send(api, "bob", "POST", f"{path}/deny", {})
    denied = await send(api, "bob", "POST", f"{path}/deny", {"reason": "no"})
    again = await send(api, "bob", "POST", f"{path}/deny", {"reason": "no"})
    late = await send(api, "carl", "POST", f"{path}/approve", seen)
    nothing = "/approvals/00000000-0000-4000-8000-000000000000"
    missing = await send(api, "bob", "GET", nothing)

    assert [422, 403, 409, 422, 200, 200, 409, 404] == [
        answer.status
        for answer in (blind, own, stale, silent, denied, again, late, missing)
    ]
    assert "digest" in blind.json["detail"]
    assert denied.json == again.json
    assert "approval_not_found" == missing.code


async def test_a_named_approval(api: API) -> None:
    """The header names the approval, which must be one, and the right one."""
    asked = (await send(api, "ann", "POST", "/keys", CREATE)).json["approval_id"]
    await approve(api, f"/approvals/{asked}")

    async def create(name: str, **headers: str) -> Answer:
        body = {**CREATE, "name": name}
        return await send(api, "ann", "POST", "/keys", body, headers=headers)

    broken = await create("agreed", **{APPROVAL_HEADER: "x"})
    other = await create("other", **{APPROVAL_HEADER: asked})
    right = await create("agreed", **{APPROVAL_HEADER: asked})

    assert (422, 403, 201) == (broken.status, other.status, right.status)


async def test_another_message_is_asked_anew() -> None:
    """AP-04: what was agreed to for one message signs no other, named or not."""
    with memory_hsm(policy=parse_policy(SIGNING)) as hsm:
        async with open_api(gateway=open_async(hsm)) as api:
            await api.create("Ed25519", name="signer")

            async def sign(message: bytes, **headers: str) -> Answer:
                body = {"message": b64(message)}
                path = "/keys/signer/sign"
                return await send(api, "ann", "POST", path, body, headers=headers)

            asked = (await sign(b"m1")).json["approval_id"]
            await approve(api, f"/approvals/{asked}")
            other = await sign(b"m2")
            named = await sign(b"m2", **{APPROVAL_HEADER: asked})
            right, again = await sign(b"m1"), await sign(b"m1")

    assert [202, 403, 200, 202] == [
        answer.status for answer in (other, named, right, again)
    ]
    assert 3 == len({asked, other.json["approval_id"], again.json["approval_id"]})


async def test_another_token_of_the_same_person(api: API) -> None:
    """The approval is the principal's: with roles that allow it, and no others."""
    asked = (await send(api, "ann", "POST", "/keys", CREATE)).json["approval_id"]
    await approve(api, f"/approvals/{asked}")

    async def create(role: str) -> Answer:
        token = mint(claims(sub="ann", roles=[role], jti=f"{role}-token"))
        return await api.send("POST", "/keys", body=CREATE, token=token)

    refused = await create("Auditor")
    kept = await send(api, "bob", "GET", f"/approvals/{asked}")
    done = await create("Administrator")

    assert (403, "access_denied") == (refused.status, refused.code)
    assert "granted" == kept.json["state"]
    assert 201 == done.status


async def test_an_idempotent_request(api: API) -> None:
    """AP-08: the key that got 202 is bound when it is done, and answers again then."""
    headers = {"Idempotency-Key": "k-1"}
    asked = await send(api, "ann", "POST", "/keys", CREATE, headers=headers)
    path = asked.headers["Location"].removeprefix("/api/v1")
    await approve(api, path)

    done = [
        await send(api, "ann", "POST", "/keys", CREATE, headers=headers)
        for _ in range(2)
    ]

    assert [201, 201] == [answer.status for answer in done]
    assert done[0].json["key_id"] == done[1].json["key_id"]


async def test_a_flood(api: API) -> None:
    """AP-10: too many open requests are 429, with a time to come back."""
    answers = [
        await send(api, "ann", "POST", "/keys", {**CREATE, "name": f"k{number}"})
        for number in range(3)
    ]

    assert [202, 202, 429] == [answer.status for answer in answers]
    assert "too_many_approvals" == answers[2].code
    assert answers[2].headers["Retry-After"]


async def test_who_may_not_approve(api: API) -> None:
    """A service sees no request of others, and approves nothing."""
    asked = (await send(api, "ann", "POST", "/keys", CREATE)).json["approval_id"]
    path = f"/approvals/{asked}"

    seen = await api.send("GET", path, roles=["Service"])
    listed = await api.send("GET", "/approvals", roles=["Service"])
    body = {"digest": "00" * 32}
    approved = await api.send("POST", f"{path}/approve", roles=["Service"], body=body)

    assert (404, 403) == (seen.status, approved.status)
    assert [] == listed.json["items"]


def test_over_the_wire() -> None:
    """The approval travels with the error between the processes."""
    with memory_hsm(settings=STRICT) as hsm:
        with pytest.raises(ApprovalRequiredError) as caught:
            hsm.act_as(caller()).execute(CreateKey(algorithm="ML-KEM-768"))

    packed = wire.encode_packed(error_record(caught.value))
    record = wire.decode_packed(packed, ErrorRecord)
    error = error_from_record(record)

    assert isinstance(error, ApprovalRequiredError)
    assert caught.value.approval == error.approval
    assert caught.value.facts == error.facts


async def test_metrics(api: API) -> None:
    """What waits for consent is counted."""
    await send(api, "ann", "POST", "/keys", CREATE)

    answer = await api.send("GET", "//metrics", token="")

    assert b"ferrohsm_approvals_pending 1.0" in answer.body
    assert b"ferrohsm_approvals_tampered 0.0" in answer.body
