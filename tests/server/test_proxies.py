# SPDX-License-Identifier: MIT
"""Source addresses of requests: trusted proxies, and nobody else's claims."""

import hashlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from hsm_server.config.settings import ProxyHeader, ProxySettings, ServerSettings
from hsm_server.limits.proxies import SourceAddresses
from hsm_server.tls.state import ClientRules
from tests.pki import SERVER, Issued, Issuer, self_signed_root
from tests.server.support import claims, mint, open_api
from tests.server.tls_support import Server, client_context, serving, state_of

PROXIES = ("10.0.0.0/8", "2001:db8:ffff::/48")
LISTED, FORWARDED = ProxyHeader.X_FORWARDED_FOR, ProxyHeader.FORWARDED


def sources(
    header: ProxyHeader = LISTED, networks: tuple[str, ...] = PROXIES
) -> SourceAddresses:
    """Return what tells sources where these are trusted."""
    return SourceAddresses(ProxySettings(networks=networks, header=header))


@pytest.mark.parametrize(
    ("said", "source"),
    [
        pytest.param([], "10.0.0.1", id="nothing"),
        pytest.param(["192.0.2.1"], "192.0.2.1", id="one"),
        pytest.param(["203.0.113.9, 192.0.2.1"], "192.0.2.1", id="claim"),
        pytest.param(["203.0.113.9", "192.0.2.1"], "192.0.2.1", id="two fields"),
        pytest.param(["192.0.2.1, 10.9.9.9, 10.1.1.1"], "192.0.2.1", id="chain"),
        pytest.param(["10.9.9.9, 10.1.1.1"], "10.9.9.9", id="proxies alone"),
        pytest.param(["192.0.2.1:4711"], "192.0.2.1", id="port"),
        pytest.param(["[2001:db8::7]:4711"], "2001:db8::7", id="port of IPv6"),
        pytest.param(["2001:db8::7"], "2001:db8::7", id="IPv6"),
        pytest.param(["2001:db8::7, 2001:db8:ffff::1"], "2001:db8::7", id="proxy IPv6"),
        pytest.param(["::ffff:192.0.2.1"], "192.0.2.1", id="mapped"),
        pytest.param(["192.0.2.1, unknown"], "10.0.0.1", id="unknown"),
        pytest.param(["192.0.2.1, "], "10.0.0.1", id="empty element"),
        pytest.param(["192.0.2.1, 10.1.1.1, x"], "10.0.0.1", id="no address"),
        pytest.param(["192.0.2.1, x, 10.1.1.1"], "10.1.1.1", id="no address behind"),
        pytest.param([", ".join(["10.1.1.1"] * 5000)], "10.1.1.1", id="long"),
    ],
)
def test_a_list_is_read_from_the_right(said: list[str], source: str) -> None:
    """What lies left of the first who is not trusted is a claim."""
    assert source == sources().source_of("10.0.0.1", said)


@pytest.mark.parametrize(
    ("said", "source"),
    [
        pytest.param(["for=192.0.2.1"], "192.0.2.1", id="one"),
        pytest.param(["For=192.0.2.1;proto=https;by=10.0.0.1"], "192.0.2.1", id="more"),
        pytest.param(["for=203.0.113.9, for=192.0.2.1"], "192.0.2.1", id="claim"),
        pytest.param(["for=203.0.113.9", "for=192.0.2.1"], "192.0.2.1", id="fields"),
        pytest.param(["for=192.0.2.1,for=10.1.1.1"], "192.0.2.1", id="chain"),
        pytest.param(['for="[2001:db8::7]:4711"'], "2001:db8::7", id="IPv6"),
        pytest.param(['for="192.0.2.1:80"'], "192.0.2.1", id="port"),
        pytest.param(['for="192.0.2.\\1"'], "192.0.2.1", id="escaped"),
        pytest.param(['for="a, for=203.0.113.9"'], "10.0.0.1", id="quoted comma"),
        pytest.param(["for=_hidden"], "10.0.0.1", id="obfuscated"),
        pytest.param(["for=unknown"], "10.0.0.1", id="unknown"),
        pytest.param(["proto=https"], "10.0.0.1", id="without"),
        pytest.param(["for=192.0.2.1;for=203.0.113.9"], "10.0.0.1", id="twice"),
        pytest.param(['for="192.0.2.1'], "10.0.0.1", id="not closed"),
        pytest.param(["for=192.0.2.1 for=203.0.113.9"], "10.0.0.1", id="no separator"),
        pytest.param(["for=192.0.2.1;"], "10.0.0.1", id="open end"),
    ],
)
def test_forwarded_is_read_from_the_right(said: list[str], source: str) -> None:
    """As RFC 7239 writes it; what can't be read is not half believed."""
    assert source == sources(FORWARDED).source_of("10.0.0.1", said)


@pytest.mark.parametrize("header", ProxyHeader)
def test_strangers_are_not_believed(header: ProxyHeader) -> None:
    """Who is no proxy of ours says what they like."""
    said = ["192.0.2.1"] if header is LISTED else ["for=192.0.2.1"]

    assert "198.51.100.1" == sources(header).source_of("198.51.100.1", said)
    assert "10.0.0.1" == sources(header, ()).source_of("10.0.0.1", said)
    assert "" == sources(header).source_of("", said)


@given(st.lists(st.text(max_size=200), max_size=5))
def test_nothing_breaks_it(said: list[str]) -> None:
    """Whatever is sent, the source is an address."""
    for header in ProxyHeader:
        found = sources(header)
        source = found.source_of("10.0.0.1", said)
        assert source == "10.0.0.1" or not found.is_trusted(source) or "10" in source


def trusting(*networks: str, header: ProxyHeader = LISTED) -> ServerSettings:
    """Return settings that trust these proxies."""
    return ServerSettings(proxies=ProxySettings(networks=networks, header=header))


@pytest.mark.parametrize(
    ("networks", "header", "source"),
    [
        pytest.param((), LISTED, "127.0.0.1", id="nobody"),
        pytest.param(("192.0.2.0/24",), LISTED, "127.0.0.1", id="somebody else"),
        pytest.param(("127.0.0.0/8",), LISTED, "203.0.113.9", id="list"),
        pytest.param(("127.0.0.0/8",), FORWARDED, "203.0.113.8", id="forwarded"),
    ],
)
async def test_the_trail_names_the_source(
    networks: tuple[str, ...], header: ProxyHeader, source: str
) -> None:
    """The one header that counts decides, and only from a trusted proxy."""
    said = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.8"}
    async with open_api(trusting(*networks, header=header)) as api:
        await api.send("GET", "/status", token="forged", headers=said)
        await api.send("POST", "/random", body={"length": 8}, headers=said)
        events = await api.events()

    seen = {e["kind"]: e["caller"]["source_address"] for e in events if "caller" in e}
    assert source == seen["Authenticate"] == seen["GenerateRandom"]


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
