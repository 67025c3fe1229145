# SPDX-License-Identifier: MIT
"""Hostile requests to a real server over TLS: documented refusals, and all recorded."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.https import Answer, Client
from tests.e2e.processes import ServerProcess
from tests.e2e.site import Site
from tests.e2e.tokens import mint, sign_token

Place = tuple[Site, ServerProcess]

HEADER = {"alg": "HS256", "typ": "JWT"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Give a server with one key, ``victim``, for all tests of this file."""
    site = Site(tmp_path_factory.mktemp("requests") / "site")
    with site.start() as server:
        with site.client(server.port, "ada", "operator") as client:
            body = {"algorithm": "AES-256-GCM", "name": "victim"}
            assert 201 == client.request("POST", "/api/v1/keys", body).status
        yield site, server
        assert 0 == server.stop()


def claims(**changes: object) -> dict[str, object]:
    """Return what a good token says as of now, with changes."""
    now = int(time.time())
    good = {"sub": "ada", "roles": ["operator"], "iat": now, "exp": now + 600}
    return good | changes


def unsigned(secret: bytes) -> str:
    """Return a token that claims to need no signature."""
    head, payload, _ = sign_token(secret, {"alg": "none"}, claims()).split(".")
    return f"{head}.{payload}."


def longer_hash(secret: bytes) -> str:
    """Return a token of another algorithm of the same family, signed well."""
    signed = sign_token(secret, HEADER | {"alg": "HS512"}, claims()).rpartition(".")[0]
    tag = hmac.new(secret, signed.encode(), hashlib.sha512).digest()
    return f"{signed}.{base64.urlsafe_b64encode(tag).rstrip(b'=').decode()}"


TOKENS: dict[str, Callable[[bytes], str]] = {
    "none": lambda secret: "",
    "garbage": lambda secret: "a.b.c",
    "other secret": lambda secret: mint(bytes(32), "ada", ["operator"]),
    "alg none": unsigned,
    "HS512": longer_hash,
    "expired": lambda secret: sign_token(
        secret, HEADER, claims(exp=int(time.time()) - 120)
    ),
    "not yet": lambda secret: sign_token(
        secret, HEADER, claims(nbf=int(time.time()) + 300)
    ),
    "audience": lambda secret: sign_token(secret, HEADER, claims(aud="others")),
    "no roles": lambda secret: sign_token(secret, HEADER, claims(roles=[])),
    "unknown role": lambda secret: sign_token(secret, HEADER, claims(roles=["root"])),
    "own key": lambda secret: sign_token(
        secret, HEADER | {"jwk": {"kty": "oct", "k": ""}}, claims()
    ),
    "for ever": lambda secret: sign_token(secret, HEADER, claims(exp=2**52)),
}


@pytest.mark.parametrize("kind", TOKENS)
def test_bad_token(place: Place, kind: str) -> None:
    """
    Whatever is wrong with a token, the answer is one and the same.
    """
    site, server = place
    token = TOKENS[kind](site.secrets["jwt-secret"])

    with Client(server.port, site.context, token) as client:
        answer = client.request("GET", "/api/v1/keys")

    told = {name: value for name, value in answer.json.items() if name != "request_id"}
    assert {
        "type": "urn:ferrohsm:error:authentication_failed",
        "title": "Authentication failed",
        "status": 401,
        "detail": "Authentication failed.",
        "code": "authentication_failed",
    } == told
    assert answer.headers["www-authenticate"].startswith("Bearer")


def text(data: bytes) -> str:
    """Return base64."""
    return base64.b64encode(data).decode()


ENCRYPT = "/api/v1/keys/victim/encrypt"
DECRYPT = "/api/v1/keys/victim/decrypt"
BODIES: dict[str, tuple[str, Any, int, str]] = {
    "repeated name": (ENCRYPT, b'{"plaintext":"","plaintext":""}', 400, "malformed"),
    "deep": (ENCRYPT, b'{"plaintext":' + b"[" * 9999, 400, "malformed"),
    "not JSON": (ENCRYPT, b"{", 400, "malformed"),
    "base64": (ENCRYPT, {"plaintext": "AA=A"}, 400, "malformed"),
    "unused bits": (ENCRYPT, {"plaintext": "AAB="}, 400, "malformed"),
    "unknown field": (ENCRYPT, {"plaintext": "", "nonce": "AA=="}, 422, ""),
    "state": ("/api/v1/keys", {"algorithm": "Ed25519", "state": "active"}, 422, ""),
    "too long": (ENCRYPT, b" " * (2 * 1024 * 1024 + 1), 413, "payload_too_large"),
    "algorithm": ("/api/v1/keys", {"algorithm": "DES"}, 422, "unknown_algorithm"),
    "dots": ("/api/v1/keys/..%2F..%2Fmeta%2Fring/rotate", {}, 422, "invalid_input"),
    "nobody": ("/api/v1/keys/nobody/rotate", {}, 404, "key_not_found"),
    "short": (DECRYPT, {"ciphertext": text(b"x")}, 422, "decryption_failed"),
    "noise": (DECRYPT, {"ciphertext": text(bytes(99))}, 422, "decryption_failed"),
    "usage": ("/api/v1/keys/victim/sign", {"message": ""}, 409, "usage_not_allowed"),
}


@pytest.mark.parametrize("kind", BODIES)
def test_bad_body(place: Place, kind: str) -> None:
    """
    Each kind of bad input has its status and code, and is recorded if about a key.
    """
    site, server = place
    path, body, status, code = BODIES[kind]
    request_id = f"bad-{kind.replace(' ', '-')}"

    with site.client(server.port, "ada", "operator", "auditor") as client:
        headers = JSON | {"X-Request-Id": request_id}
        answer = client.request("POST", path, body, headers)
        events = client.request("GET", "/api/v1/audit/events?limit=50").json["items"]
        metrics = client.request("GET", "/metrics").body

    recorded = [e["event"]["code"] for e in events if is_of(e["event"], request_id)]
    assert (status, code or answer.code) == (answer.status, answer.code)
    assert answer.code
    assert b"ferrohsm_unexpected_exceptions_total 0.0" in metrics
    if "/keys/" in path:
        assert [answer.code] == recorded


def is_of(event: dict[str, Any], request_id: str) -> bool:
    """Return whether an event belongs to a request."""
    return bool(event.get("request_id") == request_id)


def test_decryption_has_one_answer(place: Place) -> None:
    """
    A changed header, nonce, body or tag, a wrong AAD, and a cut: all look the same.
    """
    site, server = place
    answers = []

    with site.client(server.port, "ada", "operator") as client:
        body = {"plaintext": text(b"secret"), "aad": text(b"a")}
        made = client.request("POST", ENCRYPT, body).json["ciphertext"]
        good = base64.b64decode(made)
        for at in range(len(good)):
            changed = bytearray(good)
            changed[at] ^= 1
            answers.append(decrypt(client, bytes(changed), b"a"))
        answers += [decrypt(client, good[:end], b"a") for end in (0, 1, 40)]
        answers.append(decrypt(client, good, b"b"))
        whole = decrypt(client, good, b"a")

    assert 200 == whole.status
    assert 1 == len({comparable(answer) for answer in answers})
    assert "decryption_failed" == answers[0].code


def decrypt(client: Client, ciphertext: bytes, aad: bytes) -> Answer:
    """Ask for a plaintext."""
    body = {"ciphertext": text(ciphertext), "aad": text(aad)}
    return client.request("POST", DECRYPT, body)


def comparable(answer: Answer) -> tuple[int, str]:
    """Return what must be the same in answers that tell nothing."""
    told = {k: v for k, v in answer.json.items() if k != "request_id"}
    return answer.status, json.dumps(told, sort_keys=True)
