# SPDX-License-Identifier: MIT
"""PKCS#11 interface: token, sessions and objects."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.pkcs11_support import Token, create, running_token
from tests.support import require_program


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    """Return a token without a PIN, with a key of each kind."""
    folder = tmp_path_factory.mktemp("token")
    create(folder, rsa="RSA-2048", ec="EC-P256", aes="AES-256-GCM", ed="Ed25519")
    with running_token(folder) as token:
        yield token


def test_programs_see_the_token(token: Token) -> None:
    """pkcs11-tool lists the token and the objects of all keys."""
    slots, objects = token.tool("-L"), token.tool("-O")

    assert "token manufacturer : FerroHSM" in slots
    for kind in ("Private Key Object; RSA", "Public Key Object; EC ", "Secret Key"):
        assert kind in objects
    assert "label:      aes" in objects


@pytest.mark.parametrize(
    ("label", "mechanism"), [("rsa", "SHA256-RSA-PKCS"), ("ec", "ECDSA-SHA256")]
)
def test_a_signature_verifies(
    token: Token, tmp_path: Path, label: str, mechanism: str
) -> None:
    """OpenSSL verifies a signature with the public key, both read by pkcs11-tool."""
    data, signature, public = (tmp_path / name for name in ("data", "sig", "der"))
    data.write_bytes(b"hello")
    identifier = identifier_of(token, label)
    token.tool(
        *("--sign", "-m", mechanism, "--id", identifier, "-i", data, "-o", signature),
        *("--signature-format", "openssl"),
    )
    read = ("--read-object", "--type", "pubkey", "--id", identifier)
    token.tool(*read, "-o", public)

    verified = subprocess.run(
        (
            *(require_program("openssl"), "dgst", "-sha256", "-keyform", "DER"),
            *("-verify", public, "-signature", signature, data),
        ),
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert verified.stdout == b"Verified OK\n"


def identifier_of(token: Token, label: str) -> str:
    """Return the CKA_ID of a key as pkcs11-tool shows it."""
    lines = [line.split() for line in token.tool("-O").splitlines()]
    at = lines.index(["label:", label])
    return next(line[1] for line in lines[at:] if line[:1] == ["ID:"])
