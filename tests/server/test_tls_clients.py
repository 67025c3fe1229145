# SPDX-License-Identifier: MIT
"""Who is let in by a client certificate, and what the others are told."""

import hashlib
import http.client
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from hsm_server.tls.contexts import MAX_INTERMEDIATES
from hsm_server.tls.state import ClientRules
from tests.pki import SERVER, Issued, Issuer, self_signed_root
from tests.server.support import claims, mint
from tests.server.tls_support import (
    Sent,
    Server,
    client_context,
    curl,
    s_client,
    serving,
    state_of,
)

HOUR = timedelta(hours=1)


class People:
    """Authorities, those whom they have certified, and what they have revoked."""

    def __init__(self) -> None:
        self.root = self_signed_root("Root")
        self.sub = self.root.authority("Sub")
        self.server = self.root.issue("server", use=SERVER)
        self.alice = self.root.issue("alice", names=[x509.RFC822Name("a@example.com")])
        self.bob = self.sub.issue("bob")
        self.revoked = self.root.issue("revoked")

    def rules(self, **fields: Any) -> ClientRules:
        """Return rules that let in those of the root."""
        return ClientRules(**{"authorities": (self.root.der,), **fields})

    def lists(self, *revoked: x509.Certificate) -> tuple[bytes, ...]:
        """Return the CRLs of both authorities."""
        return (self.root.revocation_list(*revoked), self.sub.revocation_list())


@pytest.fixture(scope="module")
def people() -> People:
    """Give them."""
    return People()


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(people: People, request: pytest.FixtureRequest) -> Iterator[Server]:
    """Give a server that demands certificates, and has CRLs."""
    rules = people.rules(revocation_lists=people.lists(people.revoked.certificate))
    state = state_of(people.server.pair, client=rules)
    with serving(state, request.param) as running:
        yield running


def ask(server: Server, folder: Path, shown: Issued | None) -> Sent:
    """Ask who asks."""
    options: list[str] = []
    if shown is not None:
        chain, key = shown.write(folder, "client")
        options = ["-cert", str(chain), "-key", str(key), "-cert_chain", str(chain)]
    request = b"GET /peer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    return s_client(server, *options, request=request)


def told(sent: Sent) -> dict[str, Any]:
    """Return what the server says of who asks."""
    body = sent.output.partition("\r\n\r\n")[2].partition("closed")[0]
    found: dict[str, Any] = json.loads(body)
    return found


@pytest.mark.parametrize(("name", "chain"), [("alice", 2), ("bob", 3)])
def test_a_good_certificate_lets_in(
    server: Server, people: People, tmp_path: Path, name: str, chain: int
) -> None:
    """Directly below the root, or with one authority between."""
    found = told(ask(server, tmp_path, getattr(people, name)))

    assert f"CN={name}" == found["subject"]
    assert chain == found["chain"]


def below(issuer: Issuer, depth: int) -> Issued:
    """Make one with so many authorities between it and another."""
    for number in range(depth):
        issuer = issuer.authority(f"Depth {number}")
    return issuer.issue("deep")


def foreign(people: People) -> Issued:
    """Make one of an authority that is not ours."""
    return self_signed_root("Foreign").issue("mallory")


def namesake(people: People) -> Issued:
    """Make one of an authority that has the name of ours."""
    return self_signed_root("Root").issue("mallory")


def self_signed(people: People) -> Issued:
    """Make one that nobody else has signed."""
    return self_signed_root("mallory")


def expired(people: People) -> Issued:
    """Make one whose time is over."""
    return people.root.issue("late", begin=-3 * HOUR, end=-HOUR)


def not_yet_valid(people: People) -> Issued:
    """Make one whose time is still to come."""
    return people.root.issue("early", begin=HOUR)


def for_servers(people: People) -> Issued:
    """Make one that is no client's."""
    return people.root.issue("wrong", use=SERVER)


def revoked(people: People) -> Issued:
    """Give one that its CRL names."""
    return people.revoked


def without_list(people: People) -> Issued:
    """Make one of an authority that has no CRL here."""
    return people.root.authority("Unlisted").issue("unlisted")


@pytest.mark.parametrize(
    ("make", "alert"),
    [
        (foreign, "unknown_ca"),
        (namesake, "unknown_ca"),
        (self_signed, "unknown_ca"),
        (expired, "certificate_expired"),
        (not_yet_valid, "bad_certificate"),
        (for_servers, "unsupported_certificate"),
        (revoked, "certificate_revoked"),
        (without_list, "unknown_ca"),
    ],
)
def test_a_bad_certificate_is_refused_by_its_alert(
    server: Server,
    people: People,
    tmp_path: Path,
    make: Callable[[People], Issued],
    alert: str,
) -> None:
    """The client learns what is wrong with it, and nothing else."""
    before = server.handshakes(f"refused_{alert}")
    sent = ask(server, tmp_path, make(people))

    assert "HTTP/1.1" not in sent.output
    assert f"{alert.replace('_', ' ')}:" in sent.errors, sent.text
    assert server.has_counted(before + 1, f"refused_{alert}")


def test_no_certificate_is_refused_where_one_is_required(
    server: Server, tmp_path: Path
) -> None:
    """By the alert that TLS 1.3 has for that."""
    before = server.handshakes("refused_certificate_required")
    sent = ask(server, tmp_path, None)

    assert "HTTP/1.1" not in sent.output
    assert "SSL alert number 116" in sent.errors, sent.text
    assert server.has_counted(before + 1, "refused_certificate_required")


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_where_it_is_optional_a_bad_one_is_still_refused(
    people: People, tmp_path: Path, kind: str
) -> None:
    """None is good enough, and a good one is known."""
    state = state_of(people.server.pair, client=people.rules(is_required=False))
    with serving(state, kind) as server:
        assert not told(ask(server, tmp_path, None))["subject"]
        assert "CN=alice" == told(ask(server, tmp_path, people.alice))["subject"]
        assert "unknown ca:" in ask(server, tmp_path, foreign(people)).errors


def test_an_authority_below_a_root_is_enough(people: People, tmp_path: Path) -> None:
    """Then only those are let in whom it has certified."""
    rules = people.rules(authorities=(people.sub.der,))
    with serving(state_of(people.server.pair, client=rules), "asyncio") as server:
        assert "CN=bob" == told(ask(server, tmp_path, people.bob))["subject"]
        assert "unknown ca:" in ask(server, tmp_path, people.alice).errors


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def unlisted(people: People, request: pytest.FixtureRequest) -> Iterator[Server]:
    """Give a server that demands certificates, and asks for no CRL of each issuer."""
    state = state_of(people.server.pair, client=people.rules())
    with serving(state, request.param) as running:
        yield running


def is_let_in(server: Server, folder: Path, shown: Issued) -> bool:
    """Return whether one is; if not, it was told by an alert."""
    sent = ask(server, folder, shown)
    assert ("HTTP/1.1 200" in sent.output) != ("SSL alert number" in sent.errors)
    return "HTTP/1.1 200" in sent.output


def test_a_chain_has_a_greatest_length(
    unlisted: Server, people: People, tmp_path: Path
) -> None:
    """The limit itself is within it."""
    assert is_let_in(unlisted, tmp_path, below(people.root, MAX_INTERMEDIATES))
    assert not is_let_in(unlisted, tmp_path, below(people.root, MAX_INTERMEDIATES + 1))


def test_an_authority_may_say_how_long_it_is(
    unlisted: Server, people: People, tmp_path: Path
) -> None:
    """Below one of path length 0 there is no other (RFC 5280, section 4.2.1.9)."""
    last = people.root.authority("Last", below=0)

    assert is_let_in(unlisted, tmp_path, below(last, 0))
    assert not is_let_in(unlisted, tmp_path, below(last, 1))


def test_an_authority_may_be_narrowed_to_names(
    unlisted: Server, people: People, tmp_path: Path
) -> None:
    """What it certifies beyond them lets nobody in (RFC 5280, section 4.2.1.10)."""
    constraints = x509.NameConstraints([x509.DNSName("example.com")], None)
    narrow = people.root.authority("Narrow", constraints=constraints)
    inside, outside = (
        narrow.issue("named", names=[x509.DNSName(name)])
        for name in ("a.example.com", "a.example.org")
    )

    assert is_let_in(unlisted, tmp_path, inside)
    assert not is_let_in(unlisted, tmp_path, outside)


def test_curl_is_let_in_and_told_why_not(
    server: Server, people: People, tmp_path: Path
) -> None:
    """Another client finds the same words for it."""
    root, _ = people.root.write(tmp_path, "root")
    found = []
    for shown in (people.alice, people.revoked):
        chain, key = shown.write(tmp_path, "client")
        options = ("--cacert", str(root), "--cert", str(chain), "--key", str(key))
        found.append(curl(server, *options))
    let_in, refused = found

    assert 0 == let_in.status, let_in.text
    assert 56 == refused.status
    assert "certificate revoked" in refused.errors


def test_policy_and_trail_know_who_it_is(
    server: Server, people: People, tmp_path: Path
) -> None:
    """Fingerprint, subject and alternative names, of what is done and refused."""
    context = client_context(people.root, people.alice, tmp_path)
    good, bad = mint(claims(roles=["Operator", "Auditor"])), "x.y.z"
    connection = http.client.HTTPSConnection("localhost", server.port, context=context)
    body = json.dumps({"algorithm": "ed25519"})
    for token in (good, bad):
        headers = {"Authorization": f"Bearer {token}"}
        headers["Content-Type"] = "application/json"
        connection.request("POST", "/api/v1/keys", body, headers)
        connection.getresponse().read()
    connection.request("GET", "/api/v1/audit/events", headers=bearer(good))
    events = [e["event"] for e in json.load(connection.getresponse())["items"]]
    connection.close()

    told = {
        event["code"]: (event["caller"], event["parameters"])
        for event in events
        if event["code"] in {"ok", "authentication_failed"} and "caller" in event
    }
    assert 2 == len(told)
    for caller, parameters in told.values():
        fingerprint = hashlib.sha256(people.alice.der).hexdigest()
        assert fingerprint == caller["certificate_sha256"]
        assert "CN=alice" == parameters["caller_certificate_subject"]
        assert ["email:a@example.com"] == parameters["caller_certificate_names"]


def bearer(token: str) -> dict[str, str]:
    """Return the header with a token."""
    return {"Authorization": f"Bearer {token}"}


def test_the_names_of_authorities_are_told(people: People, server: Server) -> None:
    """So that a client with several certificates shows the right one."""
    assert (
        "Acceptable client certificate CA names\nCN=Root\n" in s_client(server).output
    )


def test_the_old_protocol_refuses_by_alert_too(people: People, tmp_path: Path) -> None:
    """With TLS 1.2, where that is spoken."""
    state = state_of(people.server.pair, client=people.rules())
    chain, key = foreign(people).write(tmp_path, "client")
    with serving(state, "asyncio", allow_tls_1_2=True) as server:
        shown = ("-cert", str(chain), "-key", str(key))
        sent = s_client(server, "-tls1_2", *shown)

    assert "unknown ca:" in sent.errors
