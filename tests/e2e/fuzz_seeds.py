# SPDX-License-Identifier: MIT
"""Keys for a fuzzer to play with, and one valid body wherever one is needed."""

import base64
import random
from typing import Any, Final

from tests.e2e.https import Answer, Client

__all__ = ["ROLE_SETS", "Seeds", "choose", "plant"]

ROLE_SETS: Final = (
    ("operator", "administrator", "auditor"),
    ("operator",),
    ("administrator",),
    ("auditor",),
    ("service",),
)
"""Whom the fuzzer acts as; the first may do everything."""

_MESSAGE: Final = base64.b64encode(b"a message").decode()
_EXPENDABLE: Final = 60

Seeds = dict[str, Any]
"""
What the fuzzer's hooks are told, as JSON.

``keys``: ids by operation. ``bodies``: for an operation, valid bodies by key id.
"""


def plant(client: Client) -> Seeds:
    """
    Make keys of every algorithm, and others that may be changed and destroyed.

    Args:
        client: Speaks to an empty server, and may do everything.
    """
    signers = [
        _create(client, name, f"signer-{name.lower()}")
        for name in ("EC-P256", "EC-P384", "EC-P521", "Ed25519", "RSA-2048")
    ]
    cipher = _create(client, "AES-256-GCM", "document-key")
    mac = _create(client, "HMAC-SHA-256", "webhook-mac")
    oaep = _create(client, "RSA-2048", "envelope", usages=["encrypt", "decrypt"])
    changing = [_create(client, "EC-P256", f"changing-{n}") for n in range(4)]
    expendable = [_expendable(client, number) for number in range(_EXPENDABLE)]
    bodies: dict[str, dict[str, Any]] = {
        "Sign": {key: {"message": _MESSAGE} for key in signers},
        "Verify": {key: _signed(client, key) for key in signers},
        "Encrypt": {key: {"plaintext": _MESSAGE} for key in (cipher, oaep)},
        "Decrypt": {key: _encrypted(client, key) for key in (cipher, oaep)},
        "ComputeMac": {mac: {"message": _MESSAGE}},
        "VerifyMac": {mac: _authenticated(client, mac)},
        "Rollback": {key: {"version": 1} for key in expendable},
    }
    keys = {name: list(found) for name, found in bodies.items()} | {
        "GetPublicKey": [*signers, oaep],
        "DescribeKey": [*signers, cipher, mac, oaep],
        "ListVersions": [*signers, cipher, mac, *expendable],
        "RotateKey": changing,
        "RevokeKey": expendable,
        "DestroyKey": expendable,
    }
    return {"keys": keys, "bodies": bodies}


def choose(seeds: Seeds, operation: str, chance: random.Random) -> tuple[str, Any]:
    """Return a key for an operation, and a valid body for it if it needs one."""
    key = chance.choice(seeds["keys"][operation])
    return key, seeds["bodies"].get(operation, {}).get(key)


def _create(client: Client, algorithm: str, name: str, **more: Any) -> str:
    body = {"algorithm": algorithm, "name": name} | more
    key_id: str = _done(client.request("POST", "/api/v1/keys", body)).json["key_id"]
    return key_id


def _expendable(client: Client, number: int) -> str:
    key = _create(client, "AES-256-GCM", f"expendable-{number}")
    _done(client.request("POST", f"/api/v1/keys/{key}/rotate", {}))
    return key


def _signed(client: Client, key: str) -> dict[str, str]:
    answer = client.request("POST", f"/api/v1/keys/{key}/sign", {"message": _MESSAGE})
    return {"message": _MESSAGE, "signature": _done(answer).json["signature"]}


def _encrypted(client: Client, key: str) -> dict[str, str]:
    body = {"plaintext": _MESSAGE}
    answer = client.request("POST", f"/api/v1/keys/{key}/encrypt", body)
    return {"ciphertext": _done(answer).json["ciphertext"]}


def _authenticated(client: Client, key: str) -> dict[str, str]:
    answer = client.request("POST", f"/api/v1/keys/{key}/mac", {"message": _MESSAGE})
    return {"message": _MESSAGE, "mac": _done(answer).json["mac"]}


def _done(answer: Answer) -> Answer:
    assert answer.status in {200, 201}, answer.body
    return answer
