# SPDX-License-Identifier: MIT
"""The blocks of the how-to guides do what they say, typed one after the other."""

import contextlib
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import program
from tests.e2e.site import Site
from tests.support import REPOSITORY, require_program

GUIDES = REPOSITORY / "docs" / "how-to"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = 120.0

TOLD = {
    "use-keys-in-libraries": ["CN=web.example,O=Example", "ssh-ed25519", "web.pem: OK"],
    "encrypt-and-authenticate": ["card 4711", "exit code 6"],
    "write-a-policy": ["valid, 6 rules", "allow (role:Operator)"],
    "use-rest-with-curl": ["done once", "payload.sig", "key_not_found"],
    "complete-commands": [],
    "sign-large-files": ["The signature is good; version 1 made it."],
    "hybrid-encryption": ["attack at dawn", "draft-ietf-lamps-pq-composite-kem"],
    "import-and-export": ["imported", "old-signer"],
    "life-of-a-key": ["staged", "2026-01-31T12:00:00Z", "purge_scheduled", "team"],
    "data-keys": ["of 3865470566 (0 %)", "retired"],
    "recover-a-store": ["keys compared"],
    "full-disk": ["audit  ", "available"],
    "prune-the-trail": ["intact, says the server"],
    "choose-providers": ["pyca", "SLH-DSA-SHA2-128s"],
    "dual-control": [
        "exit code 11",
        "as agreed",
        "consumed",
        "destroyed",
        "exit code 2, for it is not signed",
        "2, each by a key of its approver",
    ],
    "batches": ["invoice 3", "signature_mismatch"],
}

STARTS_ITS_OWN = {
    "back-up-and-restore": ["keys compared"],
    "restart-and-reload": [
        "bootstrap.vault",
        "processes.front_end",
        "operational",
        "ended with status 0",
    ],
    "require-client-certificates": [
        "without a certificate: curl says 56",
        "ada needs no token",
        "Peer signature type: ecdsa_secp256r1_sha256",
        "Peer signature type: mldsa65",
        "Negotiated TLS1.3 group: X25519MLKEM768",
    ],
    "tokens": [
        "both count",
        "the second alone counts",
        "the last good keys stay",
        '{"keys":[{"kty":"EC","crv":"P-256",',
    ],
    "staple-ocsp": [
        "Cert Status: good",
        "The certificate CN=localhost is revoked",
    ],
}
"""Guides that start a server, and what they show."""


def typed(site: Site, port: int) -> str:
    """Return what a shell knows before a guide is followed."""
    client = " ".join(program("hsm-cli"))
    grace = site.authority.issue("grace", server=False)
    return (
        f"shopt -s expand_aliases\n"
        f"export FERROHSM_ENDPOINT=https://localhost:{port}\n"
        f"export FERROHSM_CA_BUNDLE={site.authority.bundle}\n"
        f"export FERROHSM_CLIENT_CERT={site.client_pair.certificate}\n"
        f"export FERROHSM_CLIENT_KEY={site.client_pair.key}\n"
        f"alias hsm-cli='{client}'\n"
        f"alias python3='{sys.executable}'\n"
        f"alias hsm='{client} --actor ada --roles operator'\n"
        f"alias grace='{client} --actor grace --roles auditor "
        f"--client-cert {grace.certificate} --client-key {grace.key}'\n"
    )


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, dict[str, str]]]:
    """Give what a shell knows of one server for all guides, and its environment."""
    site = Site(tmp_path_factory.mktemp("guides") / "site")
    policy = site.folder / "policy.yaml"
    policy.touch(mode=0o600)
    policy.write_text("version: 1\nextends: default\n")
    known = {"POLICY": str(policy), "TRAIL": str(site.audit_log)}
    with site.start("--policy-config", str(policy)) as server:
        yield typed(site, server.port), site.environment() | known


@pytest.mark.parametrize("name", TOLD)
def test_guide(place: tuple[str, dict[str, str]], tmp_path: Path, name: str) -> None:
    """Every block of a guide succeeds in order, and shows what it should."""
    require_program("openssl")
    require_program("ssh-keygen")
    shell, environment = place
    blocks = BLOCK.findall((GUIDES / f"{name}.md").read_text())
    folder = tmp_path / "work"
    folder.mkdir()
    script = shell + "".join(blocks)
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    for text in TOLD[name]:
        assert text in done.stdout


@pytest.mark.parametrize("name", STARTS_ITS_OWN)
def test_guide_that_starts_a_server(tmp_path: Path, name: str) -> None:
    """Every block of a guide succeeds in order, with free ports for the usual ones."""
    require_program("ps")
    site = Site(tmp_path / "site")
    with contextlib.ExitStack() as stack:
        bound = [
            stack.enter_context(
                contextlib.closing(socket.create_server(("127.0.0.1", 0)))
            )
            for _ in range(2)
        ]
        port, other = (one.getsockname()[1] for one in bound)
    pair = site.server_pair
    script = (
        f"{typed(site, port)}set -m\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
        f"alias hsm-server='{' '.join(program('hsm-server'))}'\n"
        f"export FERROHSM_CERT={pair.certificate} FERROHSM_KEY={pair.key}\n"
        + "".join(BLOCK.findall((GUIDES / f"{name}.md").read_text()))
    )
    script = script.replace("8443", str(port)).replace("2560", str(other))
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env=site.environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    for text in STARTS_ITS_OWN[name]:
        assert text in done.stdout
    assert "reload failed" not in done.stderr
