# SPDX-License-Identifier: MIT
"""Every operation over HTTP: its verb, its status, its result."""

import base64
import json
from typing import Any

import pytest

from hsm_core import wire
from hsm_core.operations import OPERATIONS, result_type
from hsm_core.rest import API_PREFIX
from tests.server.support import API, b64, claims, mint

KEYS: list[tuple[str, str, dict[str, Any]]] = [
    ("EC-P256", "signer", {}),
    ("AES-256-GCM", "cipher", {"exportable": True}),
    ("HMAC-SHA-256", "mac", {}),
    ("P-256 + ML-KEM-768", "mailbox", {}),
    ("AES-256-KW", "transport", {}),
    ("HKDF-SHA-256", "root", {}),
    ("Ed25519", "doomed", {}),
    ("Ed25519", "next", {"staged": True}),
    ("Ed25519", "waiting", {}),
]
MESSAGE = {"message": b64(b"hello")}


async def _made(api: API) -> dict[str, str]:
    """Make keys, and things that other requests take, as base64."""
    for algorithm, name, more in KEYS:
        await api.create(algorithm, name=name, **more)
    await api.send("DELETE", "/keys/waiting", query="waiting_days=3")
    cipher = await api.send("GET", "/keys/cipher")

    async def ask(path: str, field: str, **body: Any) -> str:
        answer = await api.send("POST", path, body=body)
        assert 200 == answer.status, answer.body
        return str(answer.json[field])

    plaintext = {"plaintext": b64(b"attack")}
    return {
        "cipher": str(cipher.json["key_id"]),
        "signature": await ask("/keys/signer/sign", "signature", **MESSAGE),
        "ciphertext": await ask("/keys/cipher/encrypt", "ciphertext", **plaintext),
        "mac": await ask("/keys/mac/mac", "mac", **MESSAGE),
        "encapsulation": await ask("/keys/mailbox/encapsulate", "ciphertext"),
        "sealed": await ask("/keys/mailbox/seal", "ciphertext", **plaintext),
        "wrapped": await ask(
            "/keys/cipher/export", "wrapped", wrapping_key_id="transport"
        ),
    }


Request = tuple[str, str, Any, str]


def _key_requests(made: dict[str, str]) -> dict[str, Request]:
    """Return a request of each operation about keys that succeeds."""
    return {
        "CreateKey": ("POST", "/keys", {"algorithm": "p256", "tags": ["a"]}, ""),
        "ImportKey": (
            "POST",
            "/import",
            {
                "algorithm": "AES-256-GCM",
                "wrapping_key_id": "transport",
                "wrapped": made["wrapped"],
            },
            "",
        ),
        "DeriveKey": (
            "POST",
            "/derive",
            {"algorithm": "aes128gcm", "base_key_id": "root", "info": b64(b"x")},
            "",
        ),
        "ExportKey": (
            "POST",
            "/keys/cipher/export",
            {"wrapping_key_id": "transport", "mechanism": "AES-KW"},
            "",
        ),
        "ListKeys": ("GET", "/keys", None, "page=1&per_page=2&state=active"),
        "DescribeKey": ("GET", "/keys/signer", None, ""),
        "ListVersions": ("GET", "/keys/signer/versions", None, ""),
        "RotateKey": ("POST", "/keys/signer/rotate", None, ""),
        "Rollback": ("POST", "/keys/signer/rollback", {"version": 1}, ""),
        "GetPublicKey": ("GET", "/keys/signer/public-key", None, "version=1"),
    }


def _uses(made: dict[str, str]) -> dict[str, Request]:
    """Return a request of each operation that uses a key and succeeds."""
    bodies: dict[str, tuple[str, Any]] = {
        "Sign": ("/keys/signer/sign", MESSAGE),
        "Verify": (
            "/keys/signer/verify",
            {**MESSAGE, "signature": made["signature"]},
        ),
        "Encrypt": ("/keys/cipher/encrypt", {"plaintext": b64(b"x")}),
        "Decrypt": ("/keys/cipher/decrypt", {"ciphertext": made["ciphertext"]}),
        "Encapsulate": ("/keys/mailbox/encapsulate", None),
        "Decapsulate": (
            "/keys/mailbox/decapsulate",
            {"ciphertext": made["encapsulation"]},
        ),
        "Seal": ("/keys/mailbox/seal", {"plaintext": b64(b"x"), "aad": b64(b"a")}),
        "Open": ("/keys/mailbox/open", {"ciphertext": made["sealed"]}),
        "Rewrap": ("/keys/cipher/rewrap", {"ciphertext": made["ciphertext"]}),
        "GenerateDataKey": ("/keys/cipher/data-key", {"length": 16}),
        "ComputeMac": ("/keys/mac/mac", MESSAGE),
        "VerifyMac": ("/keys/mac/mac/verify", {**MESSAGE, "mac": made["mac"]}),
        "SignBatch": ("/keys/signer/sign/batch", _batch(MESSAGE)),
        "VerifyBatch": (
            "/keys/signer/verify/batch",
            _batch({**MESSAGE, "signature": made["signature"]}),
        ),
        "EncryptBatch": (
            "/keys/cipher/encrypt/batch",
            _batch({"plaintext": b64(b"x"), "aad": b64(b"a")}),
        ),
        "DecryptBatch": (
            "/keys/cipher/decrypt/batch",
            _batch({"ciphertext": made["ciphertext"]}),
        ),
        "ComputeMacBatch": ("/keys/mac/mac/batch", _batch(MESSAGE)),
        "VerifyMacBatch": (
            "/keys/mac/mac/verify/batch",
            _batch({**MESSAGE, "mac": made["mac"]}),
        ),
    }
    return {name: ("POST", path, body, "") for name, (path, body) in bodies.items()}


def _batch(item: dict[str, str]) -> dict[str, Any]:
    return {"items": [{"reference": "1", **item}, {"reference": "2", **item}]}


async def _valid_requests(api: API) -> dict[str, Request]:
    """Make keys, and return a request of each operation that succeeds, in order."""
    made = await _made(api)
    return {
        **_key_requests(made),
        **_uses(made),
        "GenerateRandom": ("POST", "/random", {"length": 16}, ""),
        "ListAuditEvents": ("GET", "/audit/events", None, "limit=5&ascending=true"),
        "VerifyAudit": ("POST", "/audit/verify", None, ""),
        "Status": ("GET", "/status", None, ""),
        "ListAlgorithms": ("GET", "/algorithms", None, ""),
        "SelfTest": ("POST", "/selftest", {}, ""),
        "VerifyStore": ("POST", "/store/verify", {}, ""),
        "UpdateKey": ("PATCH", "/keys/signer", {"tags": [], "owner": "o"}, ""),
        "SetRotation": ("PUT", "/keys/signer/rotation", {"max_uses": 9}, ""),
        "SuspendKey": ("POST", "/keys/signer/suspend", {"reason": "r"}, ""),
        "ResumeKey": ("POST", "/keys/signer/resume", None, ""),
        "ActivateKey": ("POST", "/keys/next/activate", {"version": 1}, ""),
        "CancelDestroy": ("POST", "/keys/waiting/cancel-destroy", None, ""),
        "ExtendRetention": (
            "POST",
            "/keys/signer/retention/extend",
            {"version": 1, "until": "2100-01-01T00:00:00Z"},
            "",
        ),
        "HoldKey": ("POST", "/keys/signer/hold", {"reason": "a case"}, ""),
        "ReleaseKey": ("POST", "/keys/signer/release", {"reason": "closed"}, ""),
        "RetentionStatus": ("GET", "/retention", None, ""),
        "ShowPolicy": ("GET", "/policy", None, ""),
        "ExplainPolicy": (
            "POST",
            "/policy/explain",
            {"operation": "Sign", "principal": "ann", "roles": ["Operator"]},
            "",
        ),
        "TestPolicy": ("POST", "/policy/test", {"policy": "version: 1"}, ""),
        "ListApprovals": ("GET", "/approvals", None, "states=pending,granted"),
        "RevokeKey": ("POST", "/keys/doomed/revoke", {"reason": "lost"}, ""),
        "DestroyKey": ("DELETE", "/keys/doomed", None, ""),
        "RecoverKey": (
            "POST",
            f"/store/keys/{made['cipher']}/recover",
            {"reason": "found"},
            "",
        ),
        "RecoverStore": ("POST", "/store/recover", {"reason": "restored"}, ""),
    }


async def test_a_valid_request_of_every_operation(api: API) -> None:
    """Each operation answers with its own status and its own type."""
    requests = await _valid_requests(api)
    names = list(requests)

    # In memory there is nothing to copy and no ledger; one person approves nothing.
    left_out = {"BackUpStores", "BeginLedger"}
    left_out |= {"GetApproval", "Approve", "Deny", "Withdraw", "CancelApproval"}
    assert {cls.__name__ for cls in OPERATIONS} == {*names, *left_out}
    possible = [cls for cls in OPERATIONS if cls.__name__ in requests]
    for cls in sorted(possible, key=lambda cls: names.index(cls.__name__)):
        method, path, body, query = requests[cls.__name__]
        answer = await api.send(method, path, body=body, query=query)
        assert cls.route.success == answer.status, (cls, answer.body)
        assert "application/json" == answer.headers["Content-Type"]
        found = wire.decode_json(answer.body, result_type(cls))
        assert isinstance(found, result_type(cls))
        for item in getattr(found, "items", ()):
            assert getattr(item, "error", None) is None, answer.body
    assert 0 == api.unexpected


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
