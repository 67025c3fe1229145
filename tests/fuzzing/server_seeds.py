# SPDX-License-Identifier: MIT
"""Keys and approvals that random requests can name."""

import base64
import random
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.e2e.https import Answer, Client

ROLE_SETS: Final = (
    ("operator", "administrator", "auditor"),
    ("operator",),
    ("administrator",),
    ("auditor",),
    ("service",),
)
"""Whom the fuzzer acts as; the first may do everything."""

_MESSAGE: Final = base64.b64encode(b"a message").decode()
_NAME: Final = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
_EXPENDABLE: Final = 60
_WAITING: Final = 8
_APPROVALS: Final = 20
PLANTED: Final = {"Approve": _APPROVALS}
"""How often the fuzzer did something before it began, by operation."""
_SIGNERS: Final = (
    *("EC-P256", "EC-P384", "EC-P521", "Ed25519", "RSA-2048"),
    *("ML-DSA-65", "SLH-DSA-SHA2-128f", "MLDSA65-ECDSA-P256-SHA512"),
)
_KEMS: Final = ("ML-KEM-768", "MLKEM768-ECDH-P256-SHA3-256")
_BATCHES: Final = ("Sign", "Verify", "Encrypt", "Decrypt", "ComputeMac", "VerifyMac")

FRESH: Final[dict[str, dict[str, Any]]] = {
    "Sign": {"message": _MESSAGE},
    "RawSign": {"data": _MESSAGE},
    "SignBatch": {"items": [{"message": _MESSAGE}]},
    "Encrypt": {"plaintext": _MESSAGE, "aad": _MESSAGE},
    "EncryptBatch": {"items": [{"plaintext": _MESSAGE}]},
    "Seal": {"plaintext": _MESSAGE, "aad": _MESSAGE},
    "GenerateDataKey": {"length": 16, "aad": _MESSAGE},
    "ComputeMac": {"message": _MESSAGE},
    "ComputeMacBatch": {"items": [{"message": _MESSAGE}]},
    "Encapsulate": {},
    "ExportKey": {"wrapping_key_id": "transport"},
    "Rollback": {"version": 1},
    "RevokeKey": {"version": 1},
}
"""A body, by operation, that fits every key that allows the operation."""

GIVEN: Final[dict[str, tuple[str, ...]]] = {
    "Verify": ("message", "signature"),
    "RawVerify": ("data", "signature"),
    "Decrypt": ("aad", "ciphertext"),
    "Open": ("aad", "ciphertext"),
    "Rewrap": ("aad", "ciphertext"),
    "VerifyMac": ("message", "mac"),
    "Decapsulate": ("ciphertext",),
    "Approve": ("digest",),
}
"""By operation, what of its body a link brings; with anything else it would fail."""

Seeds = dict[str, Any]
"""
What the fuzzer's hooks are told, as JSON.

``keys``: ids by operation. ``bodies``: for an operation, valid bodies by key id.
``keyless``: valid bodies of operations that have no key in their path.
"""


def plant(client: Client) -> Seeds:
    """
    Make keys of every algorithm, and others that may be changed and destroyed.

    Args:
        client: Speaks to an empty server, and may do everything.
    """
    signers = [_create(client, name, f"signer-{name.lower()}") for name in _SIGNERS]
    kems = [_create(client, name, f"kem-{name.lower()}") for name in _KEMS]
    cipher = _create(client, "AES-256-GCM", "document-key")
    mac = _create(client, "HMAC-SHA-256", "webhook-mac")
    oaep = _create(client, "RSA-2048", "envelope", usages=["encrypt", "decrypt"])
    transport = _create(client, "AES-256-KW", "transport")
    leaving = [
        _create(client, name, f"leaving-{name.lower()}", exportable=True)
        for name in ("AES-256-GCM", "Ed25519", "ML-DSA-44")
    ]
    root = _create(client, "HKDF-SHA-256", "session-root")
    changing = [_create(client, "EC-P256", f"changing-{n}") for n in range(4)]
    certified = [_certified(client, number) for number in range(_WAITING)]
    expendable = [_expendable(client, number) for number in range(_EXPENDABLE)]
    bodies: dict[str, dict[str, Any]] = {
        "Sign": {key: {"message": _MESSAGE} for key in signers},
        "Verify": {key: _signed(client, key) for key in signers},
        "RawSign": {key: {"data": _MESSAGE} for key in signers[:3]},
        "RawVerify": {key: _raw_signed(client, key) for key in signers[:3]},
        "AttachCertificates": {
            key: {"chain": _chain(client, key)} for key in certified
        },
        "Encrypt": {key: {"plaintext": _MESSAGE} for key in (cipher, oaep)},
        "Decrypt": {key: _encrypted(client, key) for key in (cipher, oaep)},
        "ComputeMac": {mac: {"message": _MESSAGE}},
        "VerifyMac": {mac: _authenticated(client, mac)},
        "Encapsulate": {key: {} for key in kems},
        "Decapsulate": {key: _encapsulated(client, key) for key in kems},
        "Seal": {key: {"plaintext": _MESSAGE} for key in kems},
        "Open": {key: _encrypted(client, key, "seal") for key in kems},
        "Rewrap": {cipher: _encrypted(client, cipher)}
        | {key: _encrypted(client, key, "seal") for key in kems},
        "GenerateDataKey": {key: {"length": 16} for key in (cipher, *kems)},
        "ExportKey": {key: {"wrapping_key_id": transport} for key in leaving},
        "Rollback": {key: {"version": 1} for key in expendable},
    }
    bodies |= {
        f"{name}Batch": {key: _batch(body) for key, body in bodies[name].items()}
        for name in _BATCHES
    }
    del bodies["EncryptBatch"][oaep], bodies["DecryptBatch"][oaep]
    keys = {name: list(found) for name, found in bodies.items()} | {
        "GetPublicKey": [*signers, *kems, oaep],
        "DescribeKey": [*signers, *kems, cipher, mac, oaep],
        "ListVersions": [*signers, cipher, mac, *expendable],
        "RotateKey": changing,
        "GetCertificates": certified,
        "RemoveCertificates": certified,
        "RevokeKey": expendable,
        "DestroyKey": expendable,
    }
    keyless = {
        "CreateKey": [
            {"algorithm": name, "exportable": True, "tags": tags}
            for name in (*_SIGNERS[:4], *_KEMS, "AES-256-GCM", "HMAC-SHA-256")
            for tags in ([], ["dual"])
        ],
        "ImportKey": [
            {
                "algorithm": "AES-256-GCM",
                "wrapping_key_id": transport,
                "wrapped": _exported(client, leaving[0]),
            }
        ],
        "DeriveKey": [
            {"algorithm": "HMAC-SHA-256", "base_key_id": root, "info": _MESSAGE}
        ],
    }
    keys["ActivateKey"] = [
        _create(client, "EC-P256", f"staged-{number}", staged=True)
        for number in range(_WAITING)
    ]
    keys["ResumeKey"] = [_resting(client, number) for number in range(_WAITING)]
    keys["SuspendKey"] = keys["ResumeKey"]
    keys["CancelDestroy"] = [_waiting(client, number) for number in range(_WAITING)]
    return {"keys": keys, "bodies": bodies, "keyless": keyless}


def plant_approvals(seeds: Seeds, others: Client, own: Client) -> None:
    """
    Add requests for approval.

    Args:
        seeds: What `plant` returned.

        others: Speaks for somebody to whose requests the fuzzer may consent.

        own: Speaks for the fuzzer who may do everything.
    """
    asked, approved, mine = (
        [
            _asked(_create(others, "AES-256-GCM", f"{whose}-{n}", tags=["dual"]), by)
            for n in range(_APPROVALS)
        ]
        for whose, by in (("theirs", others), ("agreed", others), ("mine", own))
    )
    for name in approved:
        body = {"digest": _digest(own, name)}
        _done(own.request("POST", f"/api/v1/approvals/{name}/approve", body))
    seeds["keys"] |= {
        "GetApproval": [*asked, *approved, *mine],
        "Approve": asked,
        "Deny": asked,
        "Withdraw": approved,
        "CancelApproval": mine,
    }
    seeds["bodies"] |= {
        "Approve": {
            name: {"comment": "agreed", "digest": _digest(own, name)} for name in asked
        },
        "Deny": {name: {"reason": "not now"} for name in asked},
    }


def _digest(client: Client, approval_id: str) -> str:
    """Return what who approves must have been shown."""
    answer = _done(client.request("GET", f"/api/v1/approvals/{approval_id}"))
    digest: str = answer.json["digest"]
    return digest


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


def _certified(client: Client, number: int) -> str:
    key = _create(client, "EC-P256", f"certified-{number}")
    body = {"chain": _chain(client, key)}
    _done(client.request("PUT", f"/api/v1/keys/{key}/certificates", body))
    return key


def _chain(client: Client, key: str) -> str:
    """Return a certificate for a key by an authority that nobody knows, PEM."""
    answer = _done(client.request("GET", f"/api/v1/keys/{key}/public-key"))
    public = serialization.load_pem_public_key(answer.json["pem"].encode())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(public)
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    return base64.b64encode(
        certificate.public_bytes(serialization.Encoding.PEM)
    ).decode()


def _waiting(client: Client, number: int) -> str:
    key = _create(client, "AES-256-GCM", f"waiting-{number}")
    path = f"/api/v1/keys/{key}?waiting_days=30"
    _done(client.request("DELETE", path))
    return key


def _resting(client: Client, number: int) -> str:
    key = _create(client, "EC-P256", f"resting-{number}")
    _done(client.request("POST", f"/api/v1/keys/{key}/suspend", {}))
    return key


def _asked(key: str, client: Client) -> str:
    """Ask for the destruction of a key, which takes two people."""
    answer = client.request("DELETE", f"/api/v1/keys/{key}")
    assert answer.status == 202, answer.body
    approval_id: str = answer.json["approval_id"]
    return approval_id


def _signed(client: Client, key: str) -> dict[str, str]:
    answer = client.request("POST", f"/api/v1/keys/{key}/sign", {"message": _MESSAGE})
    return {"message": _MESSAGE, "signature": _done(answer).json["signature"]}


def _raw_signed(client: Client, key: str) -> dict[str, str]:
    answer = client.request("POST", f"/api/v1/keys/{key}/sign/raw", {"data": _MESSAGE})
    return {"data": _MESSAGE, "signature": _done(answer).json["signature"]}


def _encrypted(client: Client, key: str, verb: str = "encrypt") -> dict[str, str]:
    body = {"plaintext": _MESSAGE}
    answer = client.request("POST", f"/api/v1/keys/{key}/{verb}", body)
    return {"ciphertext": _done(answer).json["ciphertext"]}


def _authenticated(client: Client, key: str) -> dict[str, str]:
    answer = client.request("POST", f"/api/v1/keys/{key}/mac", {"message": _MESSAGE})
    return {"message": _MESSAGE, "mac": _done(answer).json["mac"]}


def _encapsulated(client: Client, key: str) -> dict[str, str]:
    answer = client.request("POST", f"/api/v1/keys/{key}/encapsulate", {})
    return {"ciphertext": _done(answer).json["ciphertext"]}


def _exported(client: Client, key: str) -> str:
    body = {"wrapping_key_id": "transport"}
    answer = client.request("POST", f"/api/v1/keys/{key}/export", body)
    wrapped: str = _done(answer).json["wrapped"]
    return wrapped


def _batch(body: dict[str, Any]) -> dict[str, Any]:
    return {"items": [{"reference": "a", **body}, {"reference": "b", **body}]}


def _done(answer: Answer) -> Answer:
    assert answer.status in {200, 201}, answer.body
    return answer
