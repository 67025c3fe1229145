# SPDX-License-Identifier: MIT
"""Certificate chains of key versions: attach, show, remove."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

import hsm_core
from hsm_core import Key, User
from hsm_core.errors import (
    AccessDeniedError,
    InputSizeError,
    InvalidInputError,
    KeyStateError,
    UnsupportedOperationError,
)
from hsm_core.model import AuditEntry
from hsm_core.operations import ListAuditEvents
from tests.pki import Issuer, PublicOnly, self_signed_root


@pytest.fixture(scope="module")
def root() -> Issuer:
    """Give a CA."""
    return self_signed_root("Test authority")


@pytest.fixture
def ada(tmp_path: Path) -> Iterator[User]:
    """Give an operator of an HSM in files."""
    with hsm_core.open(
        tmp_path / "hsm", root=tmp_path / "root.key", create=True
    ) as hsm:
        yield hsm.as_user("ada", roles=["operator", "admin", "auditor"])


def certificate_for(root: Issuer, key: Key) -> bytes:
    """Return a certificate for the key's current version, DER."""
    return root.issue("ada", key=PublicOnly(key.public_key().der)).der


def root_der(root: Issuer) -> bytes:
    """Return the CA's certificate, DER."""
    return root.certificate.public_bytes(Encoding.DER)


def pem(der: bytes) -> bytes:
    """Return a certificate as PEM, as another library writes it."""
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


@pytest.mark.parametrize("algorithm", ["EC-P256", "RSA-2048", "Ed25519", "ML-DSA-44"])
def test_attach_show_and_remove(ada: User, root: Issuer, algorithm: str) -> None:
    """A chain is kept as given, in PEM or DER, until it is replaced or removed."""
    key = ada.create(algorithm, name="release")
    chain = (certificate_for(root, key), root_der(root))

    assert () == key.certificates().items
    for given in (b"".join(chain), b"".join(map(pem, chain))):
        key.attach_certificates(given)
        found = key.certificates()
        assert chain == tuple(item.der for item in found.items)
        assert b"".join(map(pem, chain)).decode() == found.pem
    assert (2, 2) == (key.info.certificates, key.versions()[0].certificates)

    key.attach_certificates(chain[0])
    assert (chain[0],) == tuple(item.der for item in key.certificates().items)
    key.remove_certificates()
    assert 0 == key.info.certificates
    with pytest.raises(KeyStateError, match="no certificates"):
        key.remove_certificates()


def test_versions_have_their_own(ada: User, root: Issuer) -> None:
    """Rotation starts without a chain; rollback takes that of the older version."""
    key = ada.create("EC-P256", name="release")
    first = certificate_for(root, key)
    key.attach_certificates(first)
    key.rotate()

    assert () == key.certificates().items
    assert (first,) == tuple(c.der for c in key.certificates(version=1).items)
    with pytest.raises(InvalidInputError, match="another public key"):
        key.attach_certificates(first)
    key.attach_certificates(certificate_for(root, key))
    key.rollback(1)
    assert (first,) == tuple(c.der for c in key.certificates().items)


def test_what_is_no_chain_of_the_key(ada: User, root: Issuer) -> None:
    """Garbage, other keys, a wrong order, private keys and long chains are refused."""
    key = ada.create("EC-P256", name="release")
    own = certificate_for(root, key)
    wrong = {
        b"": "must be X.509 certificates",
        b"text": "must be X.509 certificates",
        own + b"\0": "must be X.509 certificates",
        own[:-1]: "must be X.509 certificates",
        b"\x30\x03\x02\x01\x00": "must be X.509 certificates",
        own.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x0a"): "must be X.509",
        own.replace(b"\x0c\x03ada", b"\x03\x03\0da"): "must be X.509 certificates",
        root_der(root): "another public key",
        own + own: "certificate 1 was not issued by certificate 2",
        pem(own) + root.key_pem: "private key",
    }
    for chain, told in wrong.items():
        with pytest.raises(InvalidInputError, match=told) as caught:
            key.attach_certificates(chain)
        assert "chain" == caught.value.facts["field"]
    for long in (b"\x30\x00" * 70_000, own + root_der(root) * 10):
        with pytest.raises(InputSizeError):
            key.attach_certificates(long)
    assert 0 == key.info.certificates


def test_certificates_leave_room_for_changes_of_state(ada: User) -> None:
    """The certificates of all versions together are limited, whoever attaches them."""
    authority = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "long")])
    padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), bytes(130_000))
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    builder = (
        x509.CertificateBuilder(name, name, serial_number=1)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=1))
        .add_extension(padding, critical=False)
    )
    key = ada.create("Ed25519", name="release")

    def attach() -> None:
        public: Any = load_der_public_key(key.public_key().der)
        made = builder.public_key(public).sign(authority, None)
        key.attach_certificates(made.public_bytes(Encoding.DER))

    for _ in range(8):
        attach()
        attach()  # in place of the one before
        key.rotate()
    with pytest.raises(InvalidInputError, match="Remove those of old versions"):
        attach()
    with pytest.raises(InvalidInputError, match="Remove those of old versions"):
        key.rollback(8)
    key.remove_certificates(version=1)
    attach()


def test_symmetric_and_destroyed_keys(ada: User, root: Issuer) -> None:
    """A key without a public key, or at its end, takes no certificate."""
    secret = ada.create("AES-256-GCM", name="secret")
    key = ada.create("EC-P256", name="release")
    own = certificate_for(root, key)
    key.destroy()

    with pytest.raises(UnsupportedOperationError):
        secret.attach_certificates(own)
    with pytest.raises(UnsupportedOperationError):
        secret.certificates()
    with pytest.raises(KeyStateError):
        key.attach_certificates(own)


def test_reopened(tmp_path: Path, root: Issuer) -> None:
    """A chain is in the key's document, and its change in the audit log, by length."""
    where: dict[str, Any] = {"root": tmp_path / "root.key"}
    with hsm_core.open(tmp_path / "hsm", create=True, **where) as hsm:
        key = hsm.as_user("ada", roles=["operator"]).create("EC-P256", name="release")
        own = certificate_for(root, key)
        key.attach_certificates(own)
        service = hsm.as_user("eve", roles=["service"])
        assert service.key("release").certificates().items
        with pytest.raises(AccessDeniedError):
            service.key("release").remove_certificates()

    with hsm_core.open(tmp_path / "hsm", **where) as hsm:
        auditor = hsm.as_user("uma", roles=["auditor"])
        found = auditor.key("release").certificates()
        entries: tuple[AuditEntry, ...] = auditor.execute(
            ListAuditEvents(kind=("AttachCertificates",))
        ).items
    assert (own,) == tuple(item.der for item in found.items)
    assert 2 == len(entries)
    assert {("chain_bytes", len(own)), ("version", 1)} == set(
        entries[0].event.parameters.items()
    )
