# SPDX-License-Identifier: MIT
"""The guide to certificates from a CA does what it says, with Pebble for the CA."""

import subprocess
import textwrap
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.e2e.newcomer import WAIT, sh_blocks
from tests.e2e.processes import program
from tests.e2e.site import Site
from tests.server.pebble import Pebble, names_served
from tests.support import REPOSITORY, free_port

GUIDE = REPOSITORY / "docs/how-to/get-certificates-by-acme.md"
ISSUER = "https://issuer.example.com"


def test_guide(tmp_path: Path) -> None:
    """
    Every block succeeds in order, with this machine for the one that is named.

    The first has the command line of the original.
    """
    site, port = Site(tmp_path / "site"), free_port()
    work = tmp_path / "work"
    for name, source in {
        "certs/ca.pem": site.authority.bundle,
        "config/retention.yaml": REPOSITORY / "examples/config/retention.yaml",
    }.items():
        (work / name).parent.mkdir(parents=True)
        (work / name).write_bytes(source.read_bytes())
    _make_issuer(work)
    with names_served() as names:
        pebble = Pebble(tmp_path / "pebble", names.port, port, free_port())
        pebble.start()
        try:
            root = work / "root.pem"
            root.write_bytes(pebble.root())
            done = _typed(site, port, pebble, work)
        finally:
            pebble.stop()

    assert 0 == done.returncode, done.stdout + done.stderr
    for text in ("operational", "Pebble Intermediate CA", "IP Address:127.0.0.1"):
        assert text in done.stdout
    assert "account-key.pem" in done.stdout
    assert "tls alarm" not in done.stderr


def _make_issuer(work: Path) -> None:
    """Make the key that tokens are signed with, and the file that names it."""
    key = rsa.generate_private_key(65537, 2048)
    secret = work / "issuer.pem"
    secret.touch(mode=0o600)
    secret.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    public = key.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    (work / "config/jwt.yaml").write_text(
        f"algorithm: RS256\nissuer: {ISSUER}\nleeway_seconds: 120\nkeys:\n"
        "  - kid: primary-2025-10\n    public_key_pem: |\n"
        + textwrap.indent(public.decode(), " " * 6)
    )


def _typed(
    site: Site, port: int, pebble: Pebble, work: Path
) -> subprocess.CompletedProcess[str]:
    """Type the blocks of the guide."""
    client = site.client_pair
    hsm = (
        f"{' '.join(program('hsm-cli'))} --actor ada --roles operator "
        "--jwt-algorithm rs256 --jwt-private-key issuer.pem "
        f"--jwt-kid primary-2025-10 --jwt-issuer {ISSUER}"
    )
    before = (
        "shopt -s expand_aliases\nset -m\n"
        "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
        f"alias hsm-server='{' '.join(program('hsm-server'))}'\n"
        f'hsm-cli() {{ {hsm} "$@"; }}\n'
        f"export FERROHSM_MASTER_KEY=@{site.secret_file('master-key')}\n"
        f"export FERROHSM_HMAC_KEY=@{site.secret_file('hmac-key')}\n"
        f"export FERROHSM_ACME_DIRECTORY_URL={pebble.directory}\n"
        f"export FERROHSM_ACME_CA_BUNDLE={pebble.bundle}\n"
        "export FERROHSM_ENDPOINT=https://127.0.0.1:443\n"
        "export FERROHSM_CA_BUNDLE=root.pem\n"
        f"export FERROHSM_CLIENT_CERT={client.certificate}\n"
        f"export FERROHSM_CLIENT_KEY={client.key}\n"
    )
    script = WAIT + before + "".join(sh_blocks(GUIDE.read_text()))
    script = script.replace("hsm.example.com", "127.0.0.1").replace(":443", f":{port}")
    return subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=work,
        env=site.environment(),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
