# SPDX-License-Identifier: MIT
"""Requests and responses of the REST API: forms, conditions and headers."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest

from hsm_core.rest import API_PREFIX, INTERFACE_HEADER
from hsm_server.config.settings import HTTPLimits, ServerSettings
from tests.server.support import API, b64, claims, mint, open_api


async def test_creation_answers_with_the_location(api: API) -> None:
    """201 says where the new key is, and it is there."""
    answer = await api.send("POST", "/keys", body={"algorithm": "Ed25519"})

    location = answer.headers["Location"]
    assert 201 == answer.status
    assert f"{API_PREFIX}/keys/{answer.json['key_id']}" == location
    found = await api.send("GET", location.removeprefix(API_PREFIX))
    described = {name: value for name, value in found.json.items() if name != "use"}
    assert answer.json == described
    assert 0 == found.json["use"]["uses"]


@pytest.mark.parametrize("key", ["", "x" * 129, "with space", "a\tb"])
async def test_a_bad_idempotency_key_is_refused(api: API, key: str) -> None:
    """An idempotency key is 1 to 128 visible ASCII characters."""
    answer = await api.send(
        "POST",
        "/keys",
        body={"algorithm": "Ed25519"},
        headers={"Idempotency-Key": key},
    )

    assert 422 == answer.status
    assert "idempotency_key" == answer.json["facts"]["field"]


async def test_a_raw_body_may_have_a_json_answer(api: API) -> None:
    """Only Accept decides the form of the answer."""
    await api.create("Ed25519", name="signer")
    headers = {"Content-Type": "application/octet-stream"}
    answer = await api.send("POST", "/keys/signer/sign", data=b"hello", headers=headers)
    same = await api.send("POST", "/keys/signer/sign", body={"message": b64(b"hello")})

    assert same.json == answer.json


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/json, application/octet-stream;q=0.5", "application/json"),
        ("application/octet-stream;q=0", "application/json"),
        ("application/octet-stream;q=x", "application/json"),
        ("application/octet-stream;q=nan", "application/json"),
        ("application/json;q=7, application/octet-stream", "application/octet-stream"),
        ("Application/Octet-Stream", "application/octet-stream"),
        (
            "application/json;q=0.1, application/octet-stream",
            "application/octet-stream",
        ),
        ("text/html, application/octet-stream; q=0.9", "application/octet-stream"),
    ],
)
async def test_accept_chooses_the_form(api: API, accept: str, kind: str) -> None:
    """Bytes are sent only where they are asked for by name."""
    headers = {"Accept": accept}
    answer = await api.send("POST", "/random", body={"length": 8}, headers=headers)

    assert kind == answer.headers["Content-Type"]
    size = len(answer.body) if "octet" in kind else len(_random(answer.json))
    assert 8 == size


def _random(result: dict[str, str]) -> bytes:
    return base64.b64decode(result["random"])


async def test_tags_are_a_list_with_commas(api: API) -> None:
    """All tags must match, as in the original."""
    await api.create("Ed25519", name="both", tags=["a", "b"])
    await api.create("Ed25519", name="one", tags=["a"])
    both = await api.send("GET", "/keys", query="tags=a,b")
    anything = await api.send("GET", "/keys", query="tags=")

    assert ["both"] == [key["name"] for key in both.json["items"]]
    assert 2 == anything.json["total"]


async def test_a_request_that_tells_its_own_type_is_understood(api: API) -> None:
    """The tag of the operation may stand in the body, if it is the right one."""
    right = await api.send(
        "POST", "/random", body={"type": "GenerateRandom", "length": 1}
    )
    wrong = await api.send("POST", "/random", body={"type": "Sign", "length": 1})

    assert 200 == right.status
    assert (422, "invalid_input") == (wrong.status, wrong.code)


async def test_an_auditor_reads_and_does_not_sign(api: API) -> None:
    """The role of the token decides, and the trail shows the refusal."""
    await api.create("Ed25519", name="signer")
    token = mint(_auditor())
    trail = await api.send("GET", "/audit/events", token=token)
    signing = await api.send(
        "POST", "/keys/signer/sign", token=token, body={"message": b64(b"x")}
    )

    assert 200 == trail.status
    assert (403, "access_denied") == (signing.status, signing.code)
    newest = next(e for e in await api.events() if e["kind"] == "Sign")
    assert ("access_denied", "eve") == (newest["code"], newest["caller"]["principal"])


def _auditor() -> dict[str, Any]:
    return claims(sub="eve", roles=["auditor"])


async def test_the_trail_knows_the_caller(api: API) -> None:
    """Address, credential and request id stand in the record."""
    token = mint({**_auditor(), "jti": "token-7", "rip": "203.0.113.9"})
    await api.send(
        "GET", "/audit/events", token=token, headers={"X-Request-Id": "req-1"}
    )
    event = next(e for e in await api.events() if e.get("request_id") == "req-1")

    caller = event["caller"]
    assert "token-7" == caller["credential_id"]
    assert "127.0.0.1" == caller["source_address"]
    assert "rest" == caller["interface"]
    assert "interface_claimed" not in caller


async def test_a_claimed_interface_is_recorded(api: API) -> None:
    """What a client says of itself stands in its records, if it is a claim."""
    claim = "pkcs11: p11tool uid 1000"
    headers = {INTERFACE_HEADER: claim, "X-Request-Id": "req-2"}
    said = await api.send("GET", "/audit/events", headers=headers)
    wrong = [
        await api.send("GET", "/audit/events", headers={INTERFACE_HEADER: text})
        for text in ("", "a" * 129, "a\xe4")
    ]

    assert 200 == said.status
    assert [(422, "invalid_input")] * 3 == [(r.status, r.code) for r in wrong]
    events = [e for e in await api.events() if e.get("request_id") == "req-2"]
    assert [("rest", claim)] == [
        (e["caller"]["interface"], e["caller"]["interface_claimed"]) for e in events
    ]


RAW = {
    "Content-Type": "application/octet-stream",
    "Accept": "application/octet-stream",
}
DATA = bytes(range(256)) * 8


def q(data: bytes) -> str:
    """Return bytes as a query parameter holds them."""
    return quote(b64(data), safe="")


async def raw(api: API, path: str, data: bytes, query: str = "") -> bytes:
    """Send bare bytes, and return the bare bytes that come back."""
    answer = await api.send("POST", path, data=data, headers=RAW, query=query)
    assert 200 == answer.status, answer.body
    assert "application/octet-stream" == answer.headers["Content-Type"]
    assert 1 == json.loads(answer.headers["FerroHSM-Result"])["version"]
    return answer.body


@pytest.mark.parametrize(
    ("algorithm", "there", "back"),
    [
        ("AES-128-GCM", "encrypt", "decrypt"),
        ("ChaCha20-Poly1305", "encrypt", "decrypt"),
        ("P-256 + ML-KEM-768", "seal", "open"),
        ("ML-KEM-1024", "seal", "open"),
    ],
)
async def test_there_and_back(api: API, algorithm: str, there: str, back: str) -> None:
    """What is encrypted or sealed bare is decrypted or opened bare."""
    await api.create(algorithm, name="k")
    aad = f"aad={q(b'case 7?')}"
    sent = await raw(api, f"/keys/k/{there}", DATA, aad)
    again = await raw(api, "/keys/k/rewrap", sent, aad)

    assert DATA not in sent
    assert sent != again
    assert DATA == await raw(api, f"/keys/k/{back}", again, aad)


async def test_signature_with_context(api: API) -> None:
    """A context travels in the query, as base64 with every character escaped."""
    await api.create("ML-DSA-65", name="k")
    context = bytes(range(255))
    signature = await raw(api, "/keys/k/sign", DATA, f"context={q(context)}")
    query = f"context={q(context)}&signature={q(signature)}"
    headers = {"Content-Type": RAW["Content-Type"]}
    good = await api.send(
        "POST", "/keys/k/verify", data=DATA, headers=headers, query=query
    )
    none = await api.send(
        *("POST", "/keys/k/verify"),
        data=DATA,
        headers=headers,
        query=f"signature={q(signature)}",
    )

    assert (200, 1) == (good.status, good.json["version"])
    assert (422, "signature_mismatch") == (none.status, none.code)


async def test_secrets_come_bare(api: API) -> None:
    """A shared secret and a wrapped key come alone; the header tells the rest."""
    await api.create("ML-KEM-768", name="k")
    await api.create("AES-256-KW", name="w")
    await api.create("HMAC-SHA-256", name="e", exportable=True)
    made = (await api.send("POST", "/keys/k/encapsulate")).json
    headers = {"Accept": RAW["Accept"]}
    answer = await api.send(
        "POST",
        "/keys/k/decapsulate",
        body={"ciphertext": made["ciphertext"]},
        headers=headers,
    )
    export = await api.send(
        "POST", "/keys/e/export", body={"wrapping_key_id": "w"}, headers=headers
    )

    assert made["shared_secret"] == b64(answer.body)
    assert "shared_secret" not in answer.headers["FerroHSM-Result"]
    assert 40 == len(export.body)
    assert "AES-KWP" == json.loads(export.headers["FerroHSM-Result"])["mechanism"]


@pytest.mark.parametrize(
    ("path", "query", "status", "code"),
    [
        ("sign", "context=%2A", 400, "malformed"),
        ("sign", "context=AB%3D%3D", 400, "malformed"),
        ("sign", f"context={q(bytes(256))}", 422, "invalid_input"),
        ("sign", "context=&context=", 422, "invalid_input"),
        ("sign", "message=AAAA", 422, "invalid_input"),
        ("sign", f"digest={q(bytes(32))}", 422, None),
        ("sign", f"mu={q(bytes(64))}", 422, None),
        ("sign/batch", "", 415, "unsupported_media_type"),
        ("encapsulate", "", 415, "unsupported_media_type"),
        ("data-key", "", 415, "unsupported_media_type"),
        ("export", "", 415, "unsupported_media_type"),
    ],
)
async def test_refused(
    api: API, path: str, query: str, status: int, code: str | None
) -> None:
    """A query that breaks a rule, and a route that takes no bytes, say so."""
    await api.create("ML-DSA-44", name="k")
    answer = await api.send(
        "POST", f"/keys/k/{path}", data=DATA, headers=RAW, query=query
    )

    assert status == answer.status
    assert code in {None, answer.code}


async def test_limits() -> None:
    """
    A bare body ends where the settings say; a ciphertext may be longer.

    """
    limits = HTTPLimits(raw_bytes=1000)
    async with open_api(ServerSettings(limits=limits)) as api:
        await api.create("P-384 + ML-KEM-1024", name="k")
        sealed = await raw(api, "/keys/k/seal", bytes(1000))
        opened = await raw(api, "/keys/k/open", sealed)
        long = await api.send("POST", "/keys/k/seal", data=bytes(1001), headers=RAW)

    assert bytes(1000) == opened
    assert len(sealed) > 1000 + 1568
    assert (413, "payload_too_large") == (long.status, long.code)
    assert {"field": "body", "actual": 1001, "minimum": 0, "maximum": 1000} == (
        long.json["facts"]
    )


@pytest.fixture
async def keyed() -> AsyncIterator[API]:
    """Give a client with a key named k."""
    async with open_api() as opened:
        await opened.create("AES-256-GCM", name="k")
        yield opened


async def _tag(keyed: API) -> str:
    answer = await keyed.send("GET", "/keys/k")
    return answer.headers["ETag"]


async def test_a_change_makes_another_tag(keyed: API) -> None:
    """The tag of a key begins with its generation, wherever it is told."""
    made = await keyed.create("Ed25519", name="other")
    changed = await keyed.send("PATCH", "/keys/other", body={"description": "new"})
    described = await keyed.send("GET", "/keys/other")

    assert (1, 2) == (made["generation"], changed.json["generation"])
    assert '"2"' == changed.headers["ETag"]
    assert described.headers["ETag"].startswith('"2-')


async def test_what_is_known_is_not_sent_again(keyed: API) -> None:
    """If-None-Match with the tag of what is shown is answered with 304, no body."""
    tag = await _tag(keyed)
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = await keyed.send("GET", "/keys/k", headers={"If-None-Match": known})
        assert (304, b"") == (answer.status, answer.body)
        assert tag == answer.headers["ETag"]
        assert "no-store" == answer.headers["Cache-Control"]
    other = await keyed.send("GET", "/keys/k", headers={"If-None-Match": '"1"'})

    assert 200 == other.status


async def test_a_use_is_shown_to_who_asks_again(keyed: API) -> None:
    """What is shown of a key changes with its uses, and so does the tag."""
    before = await _tag(keyed)
    await keyed.send("POST", "/keys/k/encrypt", body={"plaintext": b64(b"x")})

    answer = await keyed.send("GET", "/keys/k", headers={"If-None-Match": before})
    assert 200 == answer.status
    assert before != answer.headers["ETag"]
    used = await keyed.send("POST", "/keys/k/rotate", headers={"If-Match": before})

    assert 200 == used.status


async def test_who_may_not_see_a_key_learns_nothing_of_its_tag(keyed: API) -> None:
    """A condition is looked at after the policy has spoken."""
    for known in ("*", await _tag(keyed)):
        answer = await keyed.send(
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
    keyed: API, method: str, path: str, body: object
) -> None:
    """Every change of a key keeps to If-Match; what it refuses is in the trail."""
    tag = await _tag(keyed)
    await keyed.send("POST", "/keys/k/rotate", body={})
    before = await keyed.send("GET", "/keys/k")

    answer = await keyed.send(
        method, f"/keys/k{path}", body=body, headers={"If-Match": tag}
    )

    assert (412, "precondition_failed") == (answer.status, answer.code)
    assert before.body == (await keyed.send("GET", "/keys/k")).body
    event = next(e for e in await keyed.events() if e.get("code") != "ok")
    assert "precondition_failed" == event["code"]
    assert before.json["key_id"] == event["key_id"]


@pytest.mark.parametrize(
    "condition", ['"1"', "*", None], ids=["generation", "any", "none"]
)
async def test_a_change_of_what_was_seen_is_made(
    keyed: API, condition: str | None
) -> None:
    """The generation in quotes will do, and the tag that was given."""
    sent = {"If-Match": condition or await _tag(keyed)}

    answer = await keyed.send("POST", "/keys/k/rotate", headers=sent)

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
    keyed: API, condition: str, status: int
) -> None:
    """A tag that we never gave matches nothing; what is no tag is refused."""
    answer = await keyed.send("POST", "/keys/k/rotate", headers={"If-Match": condition})

    assert status == answer.status
    assert '"1-' == (await _tag(keyed))[:3]


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
    keyed: API, method: str, path: str, body: object, header: str
) -> None:
    """Nobody believes a condition kept that was not looked at."""
    answer = await keyed.send(method, path, body=body, headers={header: '"1"'})

    assert (422, "invalid_input") == (answer.status, answer.code)
    assert header == answer.json["facts"]["field"]
    assert '"1-' == (await _tag(keyed))[:3]


async def test_of_many_who_saw_the_same_one_is_served(keyed: API) -> None:
    """Of changes at one time, under one condition, one is made."""
    answers = await asyncio.gather(
        *(
            keyed.send("POST", "/keys/k/rotate", headers={"If-Match": '"1"'})
            for _ in range(12)
        )
    )

    assert [200, *[412] * 11] == sorted(answer.status for answer in answers)
    assert '"2-' == (await _tag(keyed))[:3]


async def test_another_expectation_is_a_problem(api: API) -> None:
    """What can't be expected is refused in the form of every other refusal."""
    answer = await api.send("GET", "//healthz", token="", headers={"Expect": "foo"})

    assert (417, "expectation_failed") == (answer.status, answer.code)
    assert answer.headers["X-Request-Id"] == answer.json["request_id"]


async def test_a_body_may_be_announced(api: API) -> None:
    """Who asks before sending a body is told to go on."""
    headers = {"Expect": "100-continue"}
    answer = await api.send("POST", "/random", body={"length": 4}, headers=headers)

    assert (200, 8) == (answer.status, len(answer.json["random"]))


async def test_a_query_is_decoded_once(api: API) -> None:
    """A percent sign that was escaped stays one."""
    query = "principal=%2541&limit=1"
    answer = await api.send("GET", "/audit/events", query=query)

    assert (200, []) == (answer.status, answer.json["items"])
