# SPDX-License-Identifier: MIT
"""
The stored form of approvals, written a second time from its description alone.

It makes the vectors of ``docs/reference/formats-approvals.md`` with nothing of the
product: ``python -m tests.core.approval_vectors`` prints them. Store and integrity
secret are those of the vectors of stored keys.
"""

from __future__ import annotations

import base64
import json
import sys

from tests.core.key_vectors import STORE_ID, mac, prefixed

APPROVAL_ID = "5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24"
START = 1_750_000_000_000_000

PENDING = {
    "approval_id": APPROVAL_ID,
    "generation": 1,
    "state": "pending",
    "kind": "DestroyKey",
    "digest": "41" * 32,
    "requester": "alice",
    "demands": [{"rule": "destroy", "distinct_roles": ["Auditor"]}],
    "created_at": START,
    "expires_at": START + 86_400_000_000,
    "salt": base64.b64encode(bytes(range(32))).decode(),
    "shown_sha256": "44" * 32,
    "sealed": base64.b64encode(b"sealed").decode(),
    "key_id": "3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11",
    "credential_id": "token-1",
    "policy": "42" * 32,
}

CONSUMED = {
    **{name: PENDING[name] for name in list(PENDING)[:12]},
    "generation": 4,
    "state": "consumed",
    "uses_left": 0,
    **{name: PENDING[name] for name in list(PENDING)[12:]},
    "decisions": [
        {
            "principal": "bob",
            "granted": True,
            "at": START + 60_000_000,
            "credential_id": "token-7",
            "certificate_sha256": "43" * 32,
            "comment": "as agreed",
            "roles": ["Auditor"],
        }
    ],
    "operation_id": "2122232425262728292a2b2c2d2e2f30",
    "closed_at": START + 120_000_000,
}


def stored(approval: dict[str, object]) -> str:
    """Return the stored form of an approval."""
    payload = json.dumps(
        {**approval, "format": 1}, separators=(",", ":"), ensure_ascii=False
    )
    named = prefixed(STORE_ID.encode(), payload.encode())
    tag = mac(b"hsm-core/approval-mac/1", named).hex()
    return f'{{"approval":{payload},"mac":"{tag}"}}'


def vectors() -> dict[str, str]:
    """Return every vector by its name."""
    return {"pending": stored(PENDING), "consumed": stored(CONSUMED)}


def block() -> str:
    """Return the vectors as the page shows them."""
    return "".join(f"{name:<9}{value}\n" for name, value in vectors().items())


if __name__ == "__main__":
    sys.stdout.write(block())
