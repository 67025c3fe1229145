# SPDX-License-Identifier: MIT
"""What a CA needs to issue certificates, as a test wants them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.server.acme_hostile import HostileCA, Reply

Issuing = Callable[[object], Sequence[x509.Certificate]]
"""Returns a chain for a public key."""


def issue_by(ca: HostileCA, issue: Issuing) -> None:
    """
    Have a CA fulfil each order with what *issue* returns, and ask for no proof.

    Standard:
        RFC 8555, sections 7.4 and 7.5.
    """
    chains: list[bytes] = []
    order = {
        "status": "ready",
        "identifiers": [],
        "authorizations": [f"{ca.url}/authz"],
        "finalize": f"{ca.url}/finalize",
    }
    done = {**order, "status": "valid", "certificate": f"{ca.url}/certificate"}
    identifier = {"type": "dns", "value": "localhost"}
    proved = {"status": "valid", "identifier": identifier, "challenges": []}

    def finalize(reply: Reply) -> None:
        request = x509.load_der_x509_csr(_decoded(_payload(reply.body)["csr"]))
        issued = issue(request.public_key())
        chains.append(b"".join(c.public_bytes(Encoding.PEM) for c in issued))
        reply.send(200, done)

    ca.answers |= {
        "/newOrder": lambda reply: reply.send(201, order, Location=f"{ca.url}/order"),
        "/authz": lambda reply: reply.send(200, proved),
        "/finalize": finalize,
        "/order": lambda reply: reply.send(200, done),
        "/certificate": lambda reply: reply.send(
            200, chains[-1], content="application/pem-certificate-chain"
        ),
    }


def _payload(body: bytes) -> dict[str, str]:
    found: dict[str, str] = json.loads(_decoded(json.loads(body)["payload"]))
    return found


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
