# SPDX-License-Identifier: MIT
"""
One valid request of every operation, for the description of the API.

They name three keys that a reader can make first: ``release-signer`` (EC-P256),
``document-key`` (AES-256-GCM) and ``webhook-mac`` (HMAC-SHA-256).
"""

from __future__ import annotations

import base64
from typing import Any, Final

from hsm_core import operations as ops
from hsm_core.operations import Operation

__all__ = ["EXAMPLES"]


def _text(words: bytes) -> str:
    return base64.b64encode(words).decode()


_SIGNER: Final = {"key_id": "release-signer"}
_CIPHER: Final = {"key_id": "document-key"}
_MAC: Final = {"key_id": "webhook-mac"}
_MESSAGE: Final = {"message": _text(b"hello")}

EXAMPLES: Final[dict[type[Operation[Any]], dict[str, Any]]] = {
    ops.CreateKey: {
        "algorithm": "EC-P256",
        "name": "release-signer",
        "tags": ["operational.critical"],
    },
    ops.ListKeys: {"per_page": 20, "state": "active"},
    ops.DescribeKey: _SIGNER,
    ops.DestroyKey: _SIGNER,
    ops.ListVersions: _SIGNER,
    ops.RotateKey: _SIGNER,
    ops.Rollback: {**_SIGNER, "version": 1},
    ops.RevokeKey: {**_SIGNER, "version": 1, "reason": "laptop lost"},
    ops.GetPublicKey: _SIGNER,
    ops.Sign: {**_SIGNER, **_MESSAGE},
    ops.Verify: {**_SIGNER, **_MESSAGE, "signature": _text(bytes(64))},
    ops.Encrypt: {
        **_CIPHER,
        "plaintext": _text(b"attack at dawn"),
        "aad": _text(b"case 7"),
    },
    ops.Decrypt: {**_CIPHER, "ciphertext": _text(bytes(64)), "aad": _text(b"case 7")},
    ops.ComputeMac: {**_MAC, **_MESSAGE},
    ops.VerifyMac: {**_MAC, **_MESSAGE, "mac": _text(bytes(32))},
    ops.GenerateRandom: {"length": 32},
    ops.ListAuditEvents: {"limit": 20},
    ops.VerifyAudit: {"start_seq": 0, "limit": 1000},
    ops.Status: {},
    ops.SelfTest: {},
}
"""All fields of a valid request, as JSON, by operation."""
