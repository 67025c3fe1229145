# SPDX-License-Identifier: MIT
"""The example of a configuration starts a server."""

import subprocess
from pathlib import Path

import pytest

from tests.server.process import Site, client_context
from tests.server.support import b64, claims, mint
from tests.support import REPOSITORY

EXAMPLE = REPOSITORY / "examples" / "config" / "hsm-server.env"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Give a folder with what the example names in its directories."""
    site = Site(tmp_path)
    etc = tmp_path / "etc" / "ferrohsm"
    etc.mkdir(parents=True)
    site.cert.rename(etc / "server.pem")
    site.key.rename(etc / "server-key.pem")
    (etc / "clients.pem").write_bytes(site.authority.path.read_bytes())
    for number, name in enumerate(("master-key", "hmac-key", "jwt-secret")):
        path = etc / name
        path.write_text(b64(bytes([number]) * 32) + "\n")
        path.chmod(0o600)
    return site


def test_the_example_starts_a_server(site: Site) -> None:
    """With its directories moved and a free port, every line of it is good."""
    text = EXAMPLE.read_text().replace("=@/etc/", f"=@{site.folder}/etc/")
    text = text.replace("=/etc/", f"={site.folder}/etc/").replace(":8443", ":0")
    text = text.replace("=/var/", f"={site.folder}/var/")
    lines = [line for line in text.splitlines() if line and line[0] != "#"]
    variables = dict(line.split("=", 1) for line in lines)
    identity = site.authority.issue("client", server=False)
    context = client_context(site.authority, identity)
    token = mint(claims(iss="https://issuer.example.com"), secret=b"\2" * 32)

    with site.serve(variables=variables) as server:
        answer = server.send("GET", "/api/v1/status", token=token, context=context)
        assert 200 == answer.status
        assert 0 == server.stop()


def test_the_example_can_be_sourced() -> None:
    """A shell reads it too."""
    done = subprocess.run(
        ["sh", "-c", f'set -a; . "{EXAMPLE}"; echo "$FERROHSM_BIND"'],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "127.0.0.1:8443\n" == done.stdout
