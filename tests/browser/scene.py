# SPDX-License-Identifier: MIT
"""Sample data: keys in every state, approval requests and audit records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.browser.hall import Hall

HOSTILE: Final = "</title><script>alert('1')</script>\"'><img src=x onerror=alert(2)>"
"""Text that would do something if it were taken for more than text."""


@dataclass(frozen=True)
class Scene:
    """
    IDs of the sample data.

    Attributes:
        key_id: A key with several versions and uses.
        pending: ID of a pending approval request.
        denied: ID of a denied one.
    """

    key_id: str
    pending: str
    denied: str


def dress(hall: Hall) -> Scene:
    """Create keys, use them, and open approval requests."""
    signer = hall.create(
        "release-signing",
        description="Signs releases. Rotated each quarter by the release team.",
        tags=["production", "team:release"],
    )["key_id"]
    for _ in range(2):
        hall.ask("ada", "POST", f"/keys/{signer}/rotate", {})
    for _ in range(5):
        hall.ask("ada", "POST", f"/keys/{signer}/sign", {"message": "bWVzc2FnZQ=="})
    hall.create("payments", "AES-256-GCM", tags=["production", "dual"])
    hall.create("transport", "ML-KEM-768", tags=["post-quantum"])
    hall.create("firmware", "ML-DSA-65", description=HOSTILE)
    hall.create("sessions", "HMAC-SHA-256")
    paused = hall.create("paused", "RSA-3072")["key_id"]
    hall.ask("ada", "POST", f"/keys/{paused}/suspend", {"reason": HOSTILE})
    gone = hall.create("compromised", "Ed25519")["key_id"]
    hall.ask("adam", "POST", f"/keys/{gone}/revoke", {"reason": "Laptop was stolen"})
    leaving = hall.create("leaving", "EC-P384")["key_id"]
    hall.ask("adam", "DELETE", f"/keys/{leaving}")
    held = hall.create("held", "AES-256-GCM")["key_id"]
    hall.ask("anton", "POST", f"/keys/{held}/hold", {"reason": "Lawsuit 2026-11"})
    denied = hall.create("refused", tags=["dual"])["key_id"]
    asked = hall.ask("adam", "DELETE", f"/keys/{denied}", status=202)["approval_id"]
    hall.ask("anton", "POST", f"/approvals/{asked}/deny", {"reason": HOSTILE})
    pending = hall.ask("adam", "DELETE", "/keys/payments", status=202)["approval_id"]
    return Scene(signer, pending, asked)
