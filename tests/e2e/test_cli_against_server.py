# SPDX-License-Identifier: MIT
"""The real client against a real server: every verb, and what its exit codes say."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import ServerProcess, program
from tests.e2e.site import Site

OK, INVALID, DENIED, NOT_FOUND, CONFLICT, MISMATCH, TRANSPORT = 0, 2, 3, 4, 5, 6, 9


class Shell:
    """Runs the client against one server."""

    def __init__(self, site: Site, port: int) -> None:
        self.site = site
        self.port = port

    def run(
        self, *words: str, status: int = OK, data: bytes = b"", roles: str = "operator"
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it and check its exit status; it never shows a traceback."""
        done = self.site.cli(self.port, *words, roles=roles, data=data)
        told = (done.stdout + done.stderr).decode(errors="replace")
        assert b"Traceback" not in done.stderr
        assert status == done.returncode, f"{words}: {told}"
        return done

    def json(self, *words: str, roles: str = "operator") -> Any:
        """Run it with ``--json`` and return what it printed."""
        return json.loads(self.run(*words, "--json", roles=roles).stdout)

    def code(self, *words: str, status: int, roles: str = "operator") -> str:
        """Run it with ``--json`` and return the code of the error it printed."""
        done = self.run(*words, "--json", status=status, roles=roles)
        return str(json.loads(done.stderr or done.stdout)["code"])


@pytest.fixture
def shell(shared_site: Site, shared_server: ServerProcess) -> Shell:
    """Give a client of one server for all tests of this file."""
    return Shell(shared_site, shared_server.port)


def test_ciphertext_through_pipes(shell: Shell) -> None:
    """
    What goes in through a pipe comes out through one, after rotations too.
    """
    secret = bytes(range(256)) * 40
    shell.run("create", "AES-256-GCM", "--name", "pipes")
    encrypt = ("encrypt", "pipes", "--in", "-", "--aad", "box 7", "--out", "-")

    ciphertext = shell.run(*encrypt, data=secret).stdout
    for _ in range(2):
        shell.run("rotate", "--key-id", "pipes")

    decrypt = ("decrypt", "pipes", "--in", "-", "--aad")
    assert secret == shell.run(*decrypt, "box 7", data=ciphertext).stdout
    refused = shell.run(*decrypt, "box 8", data=ciphertext, status=MISMATCH)
    assert b"" == refused.stdout


def test_reports(shell: Shell) -> None:
    """
    Status, self-test, random bytes, algorithms and the trail are shown as JSON.
    """
    status = shell.json("status")
    patient = ("--timeout", "300", "selftest")
    selftest = shell.json(*patient, roles="administrator")
    events = shell.json("audit", "events", "--limit", "5", roles="auditor")
    verified = shell.json("audit", "verify", roles="auditor")
    random = shell.run("random", "33", "--out", "-").stdout
    algorithms = shell.json("algorithms")

    assert "operational" == status["state"]
    assert selftest["passed"]
    assert 1 <= len(events["items"]) <= 5
    assert verified["head_seq"] >= events["head_seq"]
    assert 33 == len(random)
    assert "AES-256-GCM" in str(algorithms)


def test_no_server(shared_site: Site) -> None:
    """
    Where no server is, the client says so, with an exit code of its own.
    """
    done = shared_site.cli(9, "list")

    assert TRANSPORT == done.returncode
    assert b"Traceback" not in done.stderr


def test_other_authority(shell: Shell, tmp_path: Path) -> None:
    """
    A server whose certificate is not trusted, or that mistrusts ours, is not spoken to.
    """
    stranger = Site(tmp_path / "stranger")

    mistrusting = stranger.cli(shell.port, "list")
    stranger.authority.bundle.write_bytes(shell.site.authority.bundle.read_bytes())
    mistrusted = stranger.cli(shell.port, "list")

    assert TRANSPORT == mistrusting.returncode
    assert b"not trusted" in mistrusting.stderr
    assert TRANSPORT == mistrusted.returncode


def test_no_client_certificate(shell: Shell) -> None:
    """
    Without the certificate that is demanded the client says what the server did.
    """
    command = [
        *program("hsm-cli"),
        *("--endpoint", f"https://localhost:{shell.port}"),
        *("--ca-bundle", str(shell.site.authority.bundle), "status"),
    ]

    for _ in range(3):
        done = subprocess.run(
            command, env=shell.site.environment(), capture_output=True, check=False
        )

        assert TRANSPORT == done.returncode
        assert re.search(
            b"certificate required|without an answer|reset|[Bb]roken pipe", done.stderr
        )


def test_wrong_secret(shell: Shell) -> None:
    """
    A token made with another secret is refused, and it is not said why.
    """
    other = shell.site.environment() | {"FERROHSM_JWT_SECRET": "text:" + "x" * 32}

    done = shell.site.cli(shell.port, "list", environment=other)

    assert DENIED == done.returncode
    assert b"Authentication failed" in done.stderr
