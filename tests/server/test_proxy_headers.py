# SPDX-License-Identifier: MIT
"""Headers by which proxies tell who asks: nobody is believed who sends them."""

import hashlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from hsm_server.tls.state import ClientRules
from tests.pki import SERVER, Issued, Issuer, self_signed_root
from tests.server.support import claims, mint
from tests.server.tls_support import Server, client_context, serving, state_of

ELSEWHERE = "203.0.113.9"
BAD = "Bearer x.y.z"
FEW = 11


class People:
    """An authority, the one who asks, and the one who is claimed to ask."""

    def __init__(self) -> None:
        self.root: Issuer = self_signed_root("Root")
        self.alice = self.root.issue("alice")
        self.mallory = self.root.issue("mallory")

    @property
    def claims(self) -> dict[str, str]:
        """Headers that say that somebody else asks, from elsewhere."""
        pem = quote(self.mallory.certificate.public_bytes(Encoding.PEM))
        digest = hashlib.sha256(self.mallory.der).hexdigest()
        return {
            "X-Forwarded-For": f"{ELSEWHERE}, 10.0.0.1",
            "Forwarded": f"for={ELSEWHERE};proto=https;by=10.0.0.1",
            "X-Real-IP": ELSEWHERE,
            "True-Client-IP": ELSEWHERE,
            "Via": f"1.1 {ELSEWHERE}",
            "X-Client-Cert": pem,
            "X-Forwarded-Client-Cert": f'Hash={digest};Cert="{pem}"',
            "X-SSL-Client-Cert": pem,
            "X-SSL-Client-SHA256": digest,
            "X-SSL-Client-Verify": "SUCCESS",
            "X-SSL-Client-S-DN": "CN=mallory",
        }


@pytest.fixture(scope="module")
def people() -> People:
    """Give them."""
    return People()


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(people: People, request: pytest.FixtureRequest) -> Iterator[Server]:
    """Give a server that lets in with a certificate or without."""
    rules = ClientRules(authorities=(people.root.der,), is_required=False)
    pair = people.root.issue("server", use=SERVER).pair
    with serving(state_of(pair, client=rules), request.param) as running:
        yield running


def events_under(
    server: Server, people: People, shown: Issued | None, folder: Path
) -> list[dict[str, Any]]:
    """Send requests with each header and with all; return what is recorded of them."""
    good = f"Bearer {mint(claims(roles=['Operator', 'Auditor']))}"
    context = client_context(people.root, shown, folder)
    connection = http.client.HTTPSConnection("localhost", server.port, context=context)
    single = [{name: value} for name, value in people.claims.items()]
    sent: list[str] = []
    for number, headers in enumerate([*single, people.claims]):
        # Few failures of one address are recorded one by one.
        tokens = (good, BAD) if number % FEW == 0 else (good,)
        for token in tokens:
            sent.append(f"{'with' if shown else 'without'}-{number}-{len(sent)}")
            more = {"Authorization": token, "X-Request-Id": sent[-1]}
            body = json.dumps({"length": 8})
            more["Content-Type"] = "application/json"
            connection.request("POST", "/api/v1/random", body, headers | more)
            answer = connection.getresponse()
            answer.read()
            assert (200 if token == good else 401) == answer.status
    path = "/api/v1/audit/events?limit=1000"
    connection.request("GET", path, headers={"Authorization": good})
    found = [e["event"] for e in json.load(connection.getresponse())["items"]]
    connection.close()
    of_these = [e for e in found if e.get("request_id") in sent]
    assert set(sent) == {event["request_id"] for event in of_these}
    return of_these


def test_who_asks_is_who_is_connected(
    server: Server, people: People, tmp_path: Path
) -> None:
    """Address and certificate in the trail are the connection's; nothing is added."""
    events = events_under(server, people, people.alice, tmp_path)
    digest = hashlib.sha256(people.alice.der).hexdigest()

    assert {("127.0.0.1", digest)} == {
        (event["caller"]["source_address"], event["caller"]["certificate_sha256"])
        for event in events
    }
    assert {"CN=alice"} == {
        event["parameters"]["caller_certificate_subject"] for event in events
    }
    assert ELSEWHERE not in json.dumps(events)


def test_a_certificate_in_a_header_is_none(
    server: Server, people: People, tmp_path: Path
) -> None:
    """Who has shown none in the handshake has none."""
    events = events_under(server, people, None, tmp_path)

    assert {("127.0.0.1", "")} == {
        (
            event["caller"]["source_address"],
            event["caller"].get("certificate_sha256", ""),
        )
        for event in events
    }
    assert "mallory" not in json.dumps(events)
