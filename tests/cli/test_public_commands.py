# SPDX-License-Identifier: MIT
"""Commands that show public keys in formats of other software."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from tests.cli.support import Shell


def key_id(shell: Shell, name: str) -> str:
    """Return the UUID of a key."""
    found: str = shell.ok("describe", name, "--json").json["key_id"]
    return found


class TestCsr:
    @pytest.mark.parametrize(
        "algorithm", ["RSA-2048", "EC-P384", "EC-secp256k1", "Ed25519", "ML-DSA-65"]
    )
    def test_algorithms(self, shell: Shell, algorithm: str) -> None:
        """A request names what was asked for, and its signature is good."""
        shell.ok("create", algorithm, "--name", "web")

        out = shell.ok(
            *("csr", "web", "--subject", "CN=web,O=Example", "--dns", "web.example"),
            *("--ip", "192.0.2.1", "--ip", "2001:db8::1", "--email", "a@web.example"),
            *("--uri", "spiffe://example/web"),
        ).out

        request = x509.load_pem_x509_csr(out)
        assert request.is_signature_valid
        assert "CN=web,O=Example" == request.subject.rfc4514_string()
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert not names.critical
        assert ["web.example"] == names.value.get_values_for_type(x509.DNSName)
        assert 2 == len(names.value.get_values_for_type(x509.IPAddress))
        assert 5 == len(list(names.value))

    def test_without_subject(self, shell: Shell) -> None:
        """Names alone are enough, and are critical then."""
        shell.ok("create", "p256", "--name", "web")

        request = x509.load_pem_x509_csr(
            shell.ok("csr", "web", "--dns", "a.example").out
        )

        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert names.critical
        assert not list(request.subject)

    def test_pss(self, shell: Shell) -> None:
        """An RSA key signs by PSS when it is told to; others can't."""
        shell.ok("create", "rsa2048", "--name", "r")
        shell.ok("create", "p256", "--name", "e")

        request = x509.load_pem_x509_csr(
            shell.ok("csr", "r", "--subject", "CN=r", "--pss").out
        )

        assert "1.2.840.113549.1.1.10" == request.signature_algorithm_oid.dotted_string
        assert request.is_signature_valid
        refused = shell("csr", "e", "--subject", "CN=e", "--pss")
        assert (2, True) == (refused.code, "--pss requires" in refused.err)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ([], "subject"),
            (["--subject", "web"], "subject"),
            (["--dns", "bücher.example"], "dns"),
            (["--dns", "two words"], "dns"),
            (["--ip", "1.2.3"], "ip"),
            (["--email", ""], "email"),
            (["--uri", "https://web.example/a,b"], "%2C"),
        ],
    )
    def test_bad_names(self, shell: Shell, words: list[str], said: str) -> None:
        """What is no name is refused, with the name of its option."""
        shell.ok("create", "p256", "--name", "web")

        refused = shell("csr", "web", *words)

        assert (2, True, b"") == (refused.code, said in refused.err, refused.out)

    def test_no_certificates_of_it(self, shell: Shell) -> None:
        """A key that signs no certificates says so."""
        shell.ok("create", "aes", "--name", "a")

        refused = shell("csr", "a", "--subject", "CN=a")

        assert 0 != refused.code
        assert "Traceback" not in refused.err

    def test_file_and_json(self, shell: Shell, tmp_path: Path) -> None:
        """A request goes to a file, or into JSON."""
        shell.ok("create", "p256", "--name", "web")
        path = tmp_path / "web.csr"

        shell.ok("csr", "web", "--subject", "CN=web", "--out", str(path))
        shown = shell.ok("csr", "web", "--subject", "CN=web", "--json").json

        assert x509.load_pem_x509_csr(path.read_bytes()).is_signature_valid
        assert key_id(shell, "web") == shown["key_id"]
        assert x509.load_pem_x509_csr(shown["csr"].encode()).is_signature_valid


class TestJwk:
    def test_one(self, shell: Shell) -> None:
        """One key is a JWK, with no private member."""
        shell.ok("create", "p256", "--name", "web")

        shown = shell.ok("jwk", "web").json

        assert {"kty", "kid", "crv", "x", "y"} == set(shown)

    def test_set(self, shell: Shell) -> None:
        """Several keys, or one on request, are a JWK Set in the order asked for."""
        shell.ok("create", "p256", "--name", "one")
        shell.ok("create", "ml-dsa-65", "--name", "two")

        several = shell.ok("jwk", "one", "two").json
        single = shell.ok("jwk", "one", "--set").json

        assert ["EC", "AKP"] == [key["kty"] for key in several["keys"]]
        assert several["keys"][:1] == single["keys"]

    def test_what_has_none(self, shell: Shell) -> None:
        """An algorithm without a JWK is refused by its name."""
        shell.ok("create", "MLDSA65-Ed25519-SHA512", "--name", "hybrid")

        refused = shell("jwk", "hybrid")

        assert 0 != refused.code
        assert "MLDSA65-Ed25519-SHA512" in refused.err

    def test_version_of_several(self, shell: Shell) -> None:
        """A version goes with one key."""
        refused = shell("jwk", "one", "two", "--version", "1")

        assert (2, True) == (refused.code, "--version" in refused.err)


class TestSshPublicKey:
    @pytest.mark.parametrize("algorithm", ["RSA-2048", "EC-P256", "Ed25519"])
    def test_algorithms(self, shell: Shell, algorithm: str) -> None:
        """A line of OpenSSH's form ends with the id of the key, or with a comment."""
        shell.ok("create", algorithm, "--name", "login")

        plain = shell.ok("ssh-public-key", "login").lines
        named = shell.ok("ssh-public-key", "login", "--comment", "me@there").lines

        assert 1 == len(plain) == len(named)
        assert plain[0].endswith(" " + key_id(shell, "login"))
        assert named[0].endswith(" me@there")
        load_ssh_public_key(named[0].encode())

    @pytest.mark.parametrize("algorithm", ["ML-DSA-65", "X25519", "EC-secp256k1"])
    def test_what_has_none(self, shell: Shell, algorithm: str) -> None:
        """An algorithm that OpenSSH does not know is refused by its name."""
        shell.ok("create", algorithm, "--name", "other")

        refused = shell("ssh-public-key", "other")

        assert 0 != refused.code
        assert algorithm in refused.err

    def test_bad_comment(self, shell: Shell) -> None:
        """A comment that would be a line of its own is refused."""
        shell.ok("create", "ed25519", "--name", "login")

        refused = shell("ssh-public-key", "login", "--comment", "a\nssh-rsa AAAA")

        assert (2, b"") == (refused.code, refused.out)
