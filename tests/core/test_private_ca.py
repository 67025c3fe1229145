# SPDX-License-Identifier: MIT
"""Private CA: certificates that strict verifiers accept, and their renewal."""

import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from hsm_core.errors import ConfigurationError
from hsm_core.private_ca import SERVER_DAYS, PrivateCA, new_password
from tests.support import require_program

NOW = datetime.now(UTC).replace(microsecond=0)
NAMES = ("hsm.example.com", "localhost", "127.0.0.1", "::1")


@pytest.fixture(scope="module")
def ca() -> PrivateCA:
    """Give a CA."""
    return PrivateCA.create("An HSM", NOW)


def leaf(pem: bytes) -> x509.Certificate:
    """Return the first certificate of a file."""
    return x509.load_pem_x509_certificates(pem)[0]


def verified(folder: Path, ca: PrivateCA, pem: bytes, purpose: str) -> str:
    """Return what OpenSSL's strict verification says of a certificate."""
    (folder / "ca.pem").write_bytes(ca.certificate_pem())
    (folder / "leaf.pem").write_bytes(pem)
    ending = [require_program("openssl"), "verify", "-x509_strict"]
    ending += ["-CAfile", "ca.pem", "-purpose", purpose, "leaf.pem"]
    done = subprocess.run(ending, cwd=folder, capture_output=True, text=True)
    return f"{done.stdout}{done.stderr}"


class TestServer:
    """Certificates of a server."""

    def test_openssl_verifies_it_for_a_server_alone(
        self, ca: PrivateCA, tmp_path: Path
    ) -> None:
        """It serves no client: nobody signs in with the server's certificate."""
        pem = ca.issue_server(NAMES, NOW)

        assert "leaf.pem: OK\n" == verified(tmp_path, ca, pem, "sslserver")
        assert "unsuitable" in verified(tmp_path, ca, pem, "sslclient")

    def test_renewal_keeps_names_and_replaces_the_key(self, ca: PrivateCA) -> None:
        """The new one is for the same names, and lasts as long from now on."""
        former = leaf(ca.issue_server(NAMES, NOW - timedelta(days=80)))

        renewed = leaf(ca.renew_server(former, NOW))

        extension = x509.SubjectAlternativeName
        names = [
            c.extensions.get_extension_for_class(extension).value
            for c in (former, renewed)
        ]
        assert names[0] == names[1]
        assert former.public_key() != renewed.public_key()
        assert NOW + timedelta(days=SERVER_DAYS) == renewed.not_valid_after_utc

    def test_a_foreign_certificate_is_not_renewed(self, ca: PrivateCA) -> None:
        """A CA of the same name is not the issuer."""
        other = PrivateCA.create("An HSM", NOW)
        former = leaf(other.issue_server(NAMES, NOW))

        with pytest.raises(ConfigurationError, match="did not issue"):
            ca.renew_server(former, NOW)

    def test_nothing_outlives_the_ca(self, ca: PrivateCA) -> None:
        """A certificate that ends later than its issuer can't be verified then."""
        end = ca.certificate.not_valid_after_utc

        found = leaf(ca.issue_server(NAMES, end - timedelta(days=10)))

        assert end == found.not_valid_after_utc

    def test_the_end_of_the_ca(self, ca: PrivateCA) -> None:
        """What can't be renewed any more fails, and is not renewed again and again."""
        end = ca.certificate.not_valid_after_utc
        last = leaf(ca.issue_server(NAMES, end - timedelta(days=10)))
        past = end + timedelta(days=1)

        with pytest.raises(ConfigurationError, match="The private CA expires on"):
            ca.renew_server(last, end - timedelta(days=2))
        with pytest.raises(ConfigurationError, match="The private CA expires on"):
            ca.issue_person("ada", past, days=7, password="x")


class TestPeople:
    """Credentials of people."""

    def test_the_file_holds_all_that_a_client_needs(
        self, ca: PrivateCA, tmp_path: Path
    ) -> None:
        """Key, certificate, and the CA that verifies the server."""
        made = ca.issue_person("ada", NOW, days=30, password="a word")

        found = pkcs12.load_pkcs12(made.pkcs12, b"a word")
        assert found.key is not None
        assert found.cert is not None
        assert found.cert.certificate == made.certificate
        assert found.key.public_key() == made.certificate.public_key()
        assert [ca.certificate] == [c.certificate for c in found.additional_certs]
        pem = made.certificate.public_bytes(Encoding.PEM)
        assert "leaf.pem: OK\n" == verified(tmp_path, ca, pem, "sslclient")
        assert "unsuitable" in verified(tmp_path, ca, pem, "sslserver")

    def test_the_password_protects_it(self, ca: PrivateCA) -> None:
        """Another password opens nothing."""
        made = ca.issue_person("ada", NOW, days=30, password="a word")

        with pytest.raises(ValueError, match="password"):
            pkcs12.load_pkcs12(made.pkcs12, b"another")

    def test_passwords_have_64_bits(self) -> None:
        """Four words of five letters; no two are the same."""
        found = {new_password() for _ in range(100)}

        assert 100 == len(found)
        word = "[bdfghjklmnprstvz][aiou]" * 2 + "[bdfghjklmnprstvz]"
        assert all(re.fullmatch(f"{word}(-{word}){{3}}", text) for text in found)


class TestKeys:
    """Stored keys of a CA."""

    def test_it_is_the_same_ca(self, ca: PrivateCA) -> None:
        """What a loaded CA issues, the first one has issued."""
        again = PrivateCA.load(ca.key_pem(), ca.certificate)

        leaf(again.issue_server(NAMES, NOW)).verify_directly_issued_by(ca.certificate)

    def test_other_keys_are_refused(self, ca: PrivateCA) -> None:
        """No message repeats what the file holds."""
        other = PrivateCA.create("Another", NOW).key_pem()
        key = rsa.generate_private_key(65537, 2048)
        weak = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for data, problem in (
            (other, "does not match"),
            (weak, "must be an unencrypted EC key"),
            (b"a secret", "must be an unencrypted EC key"),
        ):
            with pytest.raises(ConfigurationError, match=problem) as caught:
                PrivateCA.load(data, ca.certificate)
            assert "secret" not in str(caught.value)
