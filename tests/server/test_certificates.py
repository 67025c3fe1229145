# SPDX-License-Identifier: MIT
"""Client certificates: facts, identities, and servers without token keys."""

import contextlib
import hashlib
import http.client
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing
from ipaddress import IPv6Address
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import X509

from hsm_core._internal.policy.engine import RuleEngine
from hsm_core.errors import AuthenticationError
from hsm_core.factory import OpenHSM, open_async
from hsm_core.model import Caller, Role
from hsm_core.operations import ListAuditEvents
from hsm_core.policies import Policy, parse_policy
from hsm_core.settings import Settings
from hsm_core.testing import caller, memory_hsm
from hsm_server.certificates import (
    CertificateFacts,
    certificate_facts,
    comparable_name,
    pack_revoked,
    read_revoked,
    revocable_names,
)
from hsm_server.config.settings import TokenRules
from hsm_server.http.state import VAULT
from hsm_server.identity.clock import FlooredClock
from hsm_server.identity.token_keys import TokenTrust
from hsm_server.vault.access import Visitor
from hsm_server.vault.gatekeeper import Gatekeeper
from hsm_server.vault.local_vault import LocalVault
from tests.pki import self_signed_root
from tests.server.process import Running, Site, client_context
from tests.server.support import SECRET, SetClock, b64url, claims, mint, open_api
from tests.server.token_kit import signer

ROOT = self_signed_root("Root")


def with_subject(*attributes: x509.NameAttribute[str]) -> bytes:
    """Return a certificate with this subject, DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    good = ROOT.issue("x").certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(attributes))
        .issuer_name(good.issuer)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(good.not_valid_before_utc)
        .not_valid_after(good.not_valid_after_utc)
    )
    return builder.sign(ROOT.key, hashes.SHA256()).public_bytes(Encoding.DER)


def _names(*attributes: tuple[x509.ObjectIdentifier, str, _ASN1Type]) -> bytes:
    return with_subject(*(x509.NameAttribute(*one) for one in attributes))


# Nothing else leads to OpenSSL's comparison.
@pytest.mark.filterwarnings("ignore:X509.get_subject:DeprecationWarning")
def test_names_are_the_same_that_openssl_takes_for_the_same() -> None:
    """A list that revokes in a handshake revokes in a cluster: both compare alike."""
    common, unit = NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME
    text, ascii_only, wide = (
        _ASN1Type.UTF8String,
        _ASN1Type.PrintableString,
        _ASN1Type.BMPString,
    )
    certificates = [
        _names(*attributes)
        for attributes in (
            [(common, "Example CA", text)],
            [(common, "Example CA", ascii_only)],
            [(common, "Example CA", wide)],
            [(common, " exAMPLE  CA ", text)],
            [(common, "Example\u00a0CA", text)],
            [(common, "ExampleCA", text)],
            [(unit, "Example CA", text)],
            [(common, "\u00c9xample", text)],
            [(common, "\u00e9xample", text)],
            [(common, "\u00c9xample", wide)],
            [(common, "Example CA", text), (unit, "One", text)],
            [(unit, "ONE", ascii_only), (common, "Example CA", text)],
            [(common, "example ca", text), (unit, "one", ascii_only)],
        )
    ]
    loaded = [x509.load_der_x509_certificate(der) for der in certificates]
    ours = [comparable_name(one.subject) for one in loaded]
    theirs = [X509.from_cryptography(one).get_subject() for one in loaded]
    same = {(a, b) for a, b in product(range(len(loaded)), repeat=2) if a != b}
    found = {(a, b) for a, b in same if ours[a] == ours[b]}

    assert {(a, b) for a, b in same if theirs[a] == theirs[b]} == found
    assert {0, 1, 2, 3} | {7, 9} | {10, 12} == {one for pair in found for one in pair}


def test_nodes_of_earlier_releases_know_what_is_revoked() -> None:
    """They know a certificate by the encoding of its issuer."""
    client = ROOT.issue("client")
    issuer = ROOT.certificate.subject.public_bytes()
    former = hashlib.sha256(b"%d " % client.certificate.serial_number + issuer)
    shared = read_revoked(pack_revoked([ROOT.revocation_list(client.certificate)]))

    assert former.hexdigest() in shared
    assert set(shared) == revocable_names(client.der)


def test_without_one_nothing_is_known() -> None:
    """Nothing at all, which no rule takes for something."""
    assert CertificateFacts() == certificate_facts(b"")


def test_fingerprint_subject_and_names_are_known() -> None:
    """Each name with its kind; what rules have no word for is left out."""
    names = [
        x509.DNSName("CI.Example.COM"),
        x509.RFC822Name("Ann@Example.COM"),
        x509.IPAddress(IPv6Address("2001:db8::1")),
        x509.UniformResourceIdentifier("spiffe://example.com/Ci"),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
    ]
    issued = ROOT.issue("ci", names=names)
    der = issued.der

    assert certificate_facts(der) == CertificateFacts(
        sha256=hashlib.sha256(der).hexdigest(),
        subject="CN=ci",
        names=(
            "dns:ci.example.com",
            "email:Ann@example.com",
            "ip:2001:db8::1",
            "uri:spiffe://example.com/Ci",
        ),
        begins_at=issued.certificate.not_valid_before_utc.timestamp(),
        ends_at=issued.certificate.not_valid_after_utc.timestamp(),
    )


def test_a_subject_cannot_pretend_to_be_another() -> None:
    """What has a meaning in RFC 4514 is escaped; lines can't be broken."""
    der = with_subject(
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
        x509.NameAttribute(NameOID.COMMON_NAME, "eve,O=Other\nx\u0085"),
    )

    found = certificate_facts(der).subject

    assert "CN=eve\\,O=Other\\0Ax\\C2\\85,O=Example" == found


def named(*names: x509.GeneralName) -> bytes:
    """Return a certificate with these alternative names, DER."""
    return ROOT.issue("x", names=names).der


UNREADABLE = {
    "garbage": b"\x30\x03\x02\x01\x00",
    "many": named(*(x509.DNSName(f"n{i}.example") for i in range(65))),
    "long": named(x509.DNSName("a" * 1100)),
    # A host name that is no ASCII.
    "not-ascii": named(x509.DNSName("a.example")).replace(b"a.ex", b"\xff.ex"),
}


@pytest.mark.parametrize("which", UNREADABLE)
def test_what_rules_can_not_be_sure_of_lets_nobody_in(which: str) -> None:
    """A fact that is left out might be what a rule denies."""
    with pytest.raises(AuthenticationError):
        certificate_facts(UNREADABLE[which])


async def test_a_request_with_such_a_one_is_refused_and_recorded() -> None:
    """As one without a good token is."""
    async with open_api() as api:
        visitor = Visitor(credential=mint(), certificate=b"\x30\x00", request_id="r")
        with pytest.raises(AuthenticationError):
            await api.app[VAULT].greet(visitor, known=lambda principal: None)

        (event,) = [e for e in await api.events() if e.get("request_id") == "r"]
        assert "authentication_failed" == event["code"]


ANN, EVE = ROOT.issue("ann"), ROOT.issue("eve")
OFF_THE_POLICY = parse_policy("version: 1\nextends: default\n")


def policy(role: str = "Operator", subject: str = "CN=ann") -> Policy:
    """Return a policy that knows Ann."""
    return parse_policy(
        "version: 1\nextends: default\nidentities:\n"
        f"  - {{principal: ann, roles: [{role}], certificate_subjects: ['{subject}']}}"
    )


@contextlib.contextmanager
def opened(
    known: Policy, *, is_on: bool = True, clock: FlooredClock | None = None
) -> Iterator[tuple[OpenHSM, Gatekeeper, list[None]]]:
    """Give an HSM, its gatekeeper, and the failures that it counts."""
    failures: list[None] = []
    settings = Settings(certificate_identities=is_on)
    with memory_hsm(policy=known, settings=settings) as hsm:
        keeper = Gatekeeper(
            open_async(hsm),
            TokenTrust.of_secret(SECRET, TokenRules()),
            lambda: failures.append(None),
            clock or FlooredClock(),
        )
        yield hsm, keeper, failures


async def test_a_certificate_names_its_holder() -> None:
    """Name and roles are the policy's; the rest is what the certificate says."""
    with opened(policy()) as (_, keeper, failures):
        found = await keeper.admit(
            Visitor(certificate=ANN.der, address="192.0.2.1", request_id="r-1")
        )
    shown = certificate_facts(ANN.der)

    assert (
        Caller(
            principal="ann",
            roles=frozenset({Role.OPERATOR}),
            credential_id=f"x5t#S256:{shown.sha256[:16]}",
            credential_key=policy().people[0].credential_key,
            certificate_sha256=shown.sha256,
            certificate_subject="CN=ann",
            certificate_names=shown.names,
            source_address="192.0.2.1",
            interface="rest",
            request_id="r-1",
        )
        == found
    )
    assert [] == failures


REFUSED: dict[str, tuple[Visitor, Policy, bool]] = {
    "nothing shown": (Visitor(), policy(), True),
    "not known": (Visitor(certificate=EVE.der), policy(), True),
    "not on": (Visitor(certificate=ANN.der), policy(), False),
    "no such section": (Visitor(certificate=ANN.der), OFF_THE_POLICY, True),
    "garbage": (Visitor(certificate=b"\x30\x03\x02\x01\x00"), policy(), True),
    "a bad token": (Visitor(certificate=ANN.der, credential="x"), policy(), True),
    "other credentials": (Visitor(certificate=ANN.der, credential="?"), policy(), True),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_nobody_else_is(name: str) -> None:
    """All are refused alike, counted and recorded; a token is not made up for."""
    visitor, known, is_on = REFUSED[name]
    with opened(known, is_on=is_on) as (hsm, keeper, failures):
        with pytest.raises(AuthenticationError) as caught:
            await keeper.admit(visitor)
        page = hsm.act_as(caller(Role.AUDITOR)).execute(ListAuditEvents())
    codes = [e.event.code for e in page.items if e.event.kind == "Authenticate"]

    assert ("Authentication failed.", {}) == (str(caught.value), caught.value.facts)
    assert (1, ["authentication_failed"]) == (len(failures), codes)


async def test_a_token_says_who_it_is() -> None:
    """Whoever shows one is not whom the certificate names."""
    with opened(policy()) as (_, keeper, _):
        visitor = Visitor(certificate=ANN.der, credential=mint(claims(sub="bob")))

        assert "bob" == (await keeper.admit(visitor)).principal


async def test_a_certificate_that_has_expired_meanwhile() -> None:
    """A connection may live longer than the certificate that it was opened with."""
    facts, clock = certificate_facts(ANN.der), SetClock(0.0)
    visitor = Visitor(certificate=ANN.der)
    with opened(policy(), clock=clock) as (_, keeper, _):
        for seconds in (facts.begins_at, facts.ends_at):
            clock.seconds = seconds
            assert "ann" == keeper.authenticate(visitor).caller.principal
        for seconds in (facts.begins_at - 1, facts.ends_at + 1):
            clock.seconds = seconds
            with pytest.raises(AuthenticationError):
                keeper.authenticate(visitor)


@pytest.mark.parametrize("roles", ["", "Operator"], ids=["gone", "another role"])
async def test_a_view_ends_when_the_policy_knows_its_holder_otherwise(
    roles: str,
) -> None:
    """As it does when a token expires."""
    with opened(policy("Auditor")) as (hsm, keeper, _):
        visitor = Visitor(certificate=ANN.der)

        async def endless() -> AsyncGenerator[int, None]:
            while True:
                yield 1

        pages = keeper.while_good(visitor, endless())
        assert 1 == await anext(pages)
        put_in_force(hsm, policy(roles) if roles else OFF_THE_POLICY)
        left = 0
        with pytest.raises(AuthenticationError):
            left = len([page async for page in pages])
        assert 0 == left


def put_in_force(hsm: OpenHSM, known: Policy) -> None:
    """Replace the policy in force."""
    hsm._services.policy.replace(RuleEngine(known), 0)  # noqa: SLF001


class _WithCertificate:
    """Stands for a TLS connection: what is asked comes with a certificate."""

    def __init__(self, vault: Any) -> None:
        self._vault = vault

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._vault, name)

        def asked(*arguments: Any, **more: Any) -> Any:
            visitor, *others = arguments
            shown = Visitor(
                credential=visitor.credential,
                certificate=ANN.der,
                address=visitor.address,
                request_id=visitor.request_id,
            )
            return method(shown, *others, **more)

        return asked


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 200),
        ([("Authorization", "")], 401),
        ([("Authorization", "Bearer")], 401),
        ([("Authorization", "Basic eA==")], 401),
        ([("Authorization", "Bearer x"), ("Authorization", "Bearer x")], 401),
        ([("Sec-Fetch-Site", "none")], 200),
        ([("Sec-Fetch-Site", "same-origin")], 200),
        ([("Sec-Fetch-Site", "cross-site")], 401),
        ([("Sec-Fetch-Site", "same-site")], 401),
        ([("Origin", "https://other.example")], 401),
        ([("Origin", "null")], 401),
    ],
    ids=[
        *("none", "empty", "no token", "another scheme", "two", "typed", "own"),
        *("other site", "neighbour", "other origin", "no origin"),
    ],
)
async def test_over_http(headers: list[tuple[str, str]], status: int) -> None:
    """Neither beside credentials that are none, nor for the page of somebody else."""
    settings = Settings(certificate_identities=True)
    with memory_hsm(policy=policy(), settings=settings) as hsm:
        async with open_api(
            gateway=open_async(hsm),
            between=lambda gateway, keeper: _WithCertificate(
                LocalVault(gateway, keeper)
            ),
        ) as api:
            async with api.client.get("/api/v1/keys", headers=headers) as answer:
                assert status == answer.status


POLICY = """version: 1
extends: default
identities:
  - {principal: ada, roles: [Operator], certificate_subjects: ["CN=ada"]}
"""
UNSIGNED = ".".join(
    b64url(part) for part in (b'{"alg":"none"}', b'{"sub":"ada","exp":9999999999}', b"")
)


def ask(site: Site, server: Running, pair: tuple[Path, Path], token: str) -> int:
    """Return how a request with a certificate, and perhaps a token, is answered."""
    context = client_context(site.authority, pair)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with closing(
        http.client.HTTPSConnection(*server.address, context=context, timeout=60)
    ) as connection:
        connection.request("GET", "/api/v1/keys", None, headers)
        return connection.getresponse().status


def test_it_needs_no_key_of_tokens(tmp_path: Path) -> None:
    """Known people come in by certificate; no token does, whatever signed it."""
    site = Site(tmp_path)
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    ada, eve = (site.authority.issue(name, server=False) for name in ("ada", "eve"))
    flags = ("--client-ca", str(site.authority.path), "--client-cert-identities")
    tokens = [
        *(mint(secret=SECRET), mint(secret=b""), mint(secret=b"\0" * 32), UNSIGNED),
        *(signer(name).token() for name in ("RS256", "ES256", "EdDSA")),
    ]
    changes = {"FERROHSM_JWT_SECRET": ""}
    more = ("--policy-config", str(policy))
    with site.serve(*flags, *more, changes=changes) as server:
        assert (200, 401) == (ask(site, server, ada, ""), ask(site, server, eve, ""))
        assert {401} == {ask(site, server, ada, token) for token in tokens}
        context = client_context(site.authority, ada)
        page = server.send("GET", "/.well-known/jwks.json", context=context)
        assert {"keys": []} == json.loads(page.body)
        assert 0 == server.stop()

    log = (tmp_path / "log").read_text()
    assert 1 == log.count("note: no token keys are configured")
