# SPDX-License-Identifier: MIT
"""Every operation over HTTP: its verb, its status, its result."""

import base64
import json
from typing import Any

import pytest

from hsm_core.rest import API_PREFIX
from tests.server.support import API, b64, claims, mint


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


async def test_a_mutation_is_done_once_for_one_idempotency_key(api: API) -> None:
    """The same key and request give the same answer; another request is a conflict."""
    headers = {"Idempotency-Key": "once"}
    body = {"algorithm": "Ed25519"}
    first = await api.send("POST", "/keys", body=body, headers=headers)
    again = await api.send("POST", "/keys", body=body, headers=headers)
    other = await api.send(
        "POST", "/keys", body={"algorithm": "EC-P256"}, headers=headers
    )

    assert first.json == again.json
    assert (409, "idempotency_conflict") == (other.status, other.code)


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


async def test_a_raw_body_is_the_payload(api: API) -> None:
    """A message, a plaintext or a ciphertext may travel bare, and come back bare."""
    await api.create("AES-256-GCM", name="cipher")
    data = bytes(range(256)) * 8
    raw = {
        "Content-Type": "application/octet-stream",
        "Accept": "application/octet-stream",
    }
    aad = f"aad={b64(b'case 7').replace('+', '%2B').replace('/', '%2F')}"
    sealed = await api.send(
        "POST", "/keys/cipher/encrypt", data=data, headers=raw, query=aad
    )
    opened = await api.send(
        "POST", "/keys/cipher/decrypt", data=sealed.body, headers=raw, query=aad
    )

    assert data == opened.body
    assert "application/octet-stream" == opened.headers["Content-Type"]
    assert 1 == json.loads(opened.headers["FerroHSM-Result"])["version"]
    assert "plaintext" not in opened.headers["FerroHSM-Result"]


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
