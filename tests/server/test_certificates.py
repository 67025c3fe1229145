# SPDX-License-Identifier: MIT
"""What is known of a caller by the client certificate."""

import hashlib
from ipaddress import IPv6Address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from hsm_core.errors import AuthenticationError
from hsm_server.http.state import VAULT
from hsm_server.tls.certificates import CertificateFacts, certificate_facts
from hsm_server.vault.access import Visitor
from tests.pki import self_signed_root
from tests.server.support import mint, open_api

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
