# SPDX-License-Identifier: MIT
"""Bare bytes in both directions, with everything else in the query and a header."""

import json
from urllib.parse import quote

import pytest

from hsm_server.config.settings import HTTPLimits, ServerSettings
from tests.server.support import API, b64, open_api

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
