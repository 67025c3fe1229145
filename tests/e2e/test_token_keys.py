# SPDX-License-Identifier: MIT
"""The command line mints with every algorithm, and the server takes it."""

import base64
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.e2e.processes import ServerProcess
from tests.e2e.site import Site

ISSUER = "https://issuer.example.com"
NAMES = {"rs256": "RS256", "es256": "ES256", "eddsa": "EdDSA"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Give a site with a private key for each algorithm, and a file of public ones."""
    site = Site(tmp_path_factory.mktemp("token-keys") / "site")
    keys: dict[str, Any] = {
        "rs256": rsa.generate_private_key(65537, 2048),
        "es256": ec.generate_private_key(ec.SECP256R1()),
        "eddsa": ed25519.Ed25519PrivateKey.generate(),
    }
    text = f"issuer: {ISSUER}\nleeway_seconds: 120\nkeys:\n"
    for name, key in keys.items():
        _private(site.folder / f"{name}.pem", key)
        spki = PublicFormat.SubjectPublicKeyInfo
        pem = key.public_key().public_bytes(Encoding.PEM, spki).decode()
        text += f"  - kid: {name}\n    algorithm: {NAMES[name]}\n"
        text += f"    public_key_pem: |\n{textwrap.indent(pem, ' ' * 6)}"
    secret = base64.b64encode(site.secrets["jwt-secret"]).decode()
    text += f"  - kid: hs256\n    secret: {secret}\n"
    config = site.folder / "jwt.yaml"
    config.touch(mode=0o600)
    config.write_text(text)
    return site


def _private(path: Path, key: Any) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )


@pytest.fixture(scope="module")
def server(site: Site) -> Iterator[ServerProcess]:
    """Give a server with the file of keys, and no secret."""
    environment = site.environment()
    del environment["FERROHSM_JWT_SECRET"]
    config = ("--auth-jwt-config", str(site.folder / "jwt.yaml"))
    with site.start(*config, environment=environment) as server:
        yield server


@pytest.mark.parametrize("name", [*NAMES, "hs256", "HS256", "EdDSA"])
@pytest.mark.parametrize("named", [True, False], ids=["kid", "no-kid"])
def test_the_command_line_is_let_in(
    site: Site, server: ServerProcess, name: str, named: bool
) -> None:
    """With the flags of the original, in any case."""
    environment = site.environment()
    line = ["--jwt-algorithm", name, "--jwt-issuer", ISSUER]
    if name.lower() in NAMES:
        del environment["FERROHSM_JWT_SECRET"]
        line += ["--jwt-private-key", str(site.folder / f"{name.lower()}.pem")]
    if named:
        line += ["--jwt-kid", name.lower()]
    who = ("--token-ttl", "60")
    done = site.cli(server.port, *line, *who, "list", environment=environment)

    assert 0 == done.returncode, done.stderr


def test_another_issuer_is_refused(site: Site, server: ServerProcess) -> None:
    """The file says whose tokens count."""
    key = ("--jwt-private-key", str(site.folder / "es256.pem"))
    for issuer in ((), ("--jwt-issuer", "https://other.example.com")):
        line = ("--jwt-algorithm", "es256", *key, *issuer)
        done = site.cli(server.port, *line, "list", environment=site.environment())
        assert b"Authentication failed" in done.stderr
