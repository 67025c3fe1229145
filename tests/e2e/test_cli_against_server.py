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


def test_signature_in_files(shell: Shell, tmp_path: Path) -> None:
    """
    A file is signed, its signature verified, and refused for another file.
    """
    message, other = tmp_path / "message", tmp_path / "other"
    message.write_bytes(b"what was signed")
    other.write_bytes(b"what was not")
    signature = tmp_path / "signature"
    shell.run("create", "Ed25519", "--name", "in-files")

    shell.run("sign", "in-files", "--in", str(message), "--out", str(signature))

    verify = ("verify", "in-files", "--signature", str(signature), "--in")
    shell.run(*verify, str(message))
    shell.run(*verify, str(other), status=MISMATCH)
    assert 64 == signature.stat().st_size


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


def test_mac(shell: Shell) -> None:
    """
    A MAC is computed and checked.
    """
    shell.run("create", "HMAC-SHA-256", "--name", "mac")

    mac = shell.json("mac", "mac", "--text", "hello")["mac"]

    shell.run("verify-mac", "mac", "--text", "hello", "--mac-base64", mac)
    shell.run(
        "verify-mac", "mac", "--text", "hullo", "--mac-base64", mac, status=MISMATCH
    )


def test_life_of_a_key(shell: Shell) -> None:
    """
    A key is made, rotated, rolled back, revoked and destroyed, and each is shown.
    """
    key = shell.json("create", "EC-P384", "--name", "life", "--tags", "a,b")
    key_id = key["key_id"]
    shell.run("rotate", key_id)
    shell.run("rollback", "--key-id", key_id, "--version", "1")
    shell.run(
        "revoke", key_id, "--version", "2", "--reason", "lost", roles="administrator"
    )

    versions = shell.json("versions", key_id)["items"]
    by_tags = shell.json("list", "--tags", "b,a")["items"]
    shell.run("destroy", key_id, "--yes", roles="administrator")
    listed = shell.json("list")["items"]

    assert ["retired", "revoked", "active"] == [v["state"] for v in versions]
    assert 1 == versions[2]["rolled_back_from"]
    assert [key_id] == [k["key_id"] for k in by_tags]
    assert key_id not in [k["key_id"] for k in listed]
    assert "destroyed" == shell.json("describe", key_id)["state"]


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


def test_exported_public_key(shell: Shell) -> None:
    """
    A public key comes as PEM, DER or JWK.
    """
    shell.run("create", "RSA-2048", "--name", "exported")

    pem = shell.run("public-key", "exported").stdout
    der = shell.run("public-key", "exported", "--format", "der", "--out", "-").stdout
    jwk = json.loads(shell.run("public-key", "exported", "--format", "jwk").stdout)

    assert pem.startswith(b"-----BEGIN PUBLIC KEY-----")
    assert 0x30 == der[0]
    assert "RSA" == jwk["kty"]


def test_idempotency_key(shell: Shell) -> None:
    """
    A command that is repeated under its idempotency key does nothing a second time.
    """
    create = ("create", "EC-P256", "--idempotency-key", "the-same")

    first = shell.json(*create)
    second = shell.json(*create)
    rotated = shell.json("rotate", first["key_id"], "--idempotency-key", "turn")
    again = shell.json("rotate", first["key_id"], "--idempotency-key", "turn")

    assert first == second
    assert (2, rotated) == (rotated["version"], again)
    other = ("create", "EC-P384", "--idempotency-key", "the-same")
    assert "idempotency_conflict" == shell.code(*other, status=CONFLICT)


@pytest.mark.parametrize(
    ("words", "roles", "status", "code"),
    [
        (("describe", "nobody"), "operator", NOT_FOUND, "key_not_found"),
        (("describe", "../../etc/passwd"), "operator", INVALID, "invalid_input"),
        (("create", "ROT13"), "operator", INVALID, "unknown_algorithm"),
        (("create", "EC-P256", "--usage", "encrypt"), "operator", INVALID, None),
        (("sign", "wrongly", "--text", "x"), "operator", CONFLICT, "usage_not_allowed"),
        (
            ("create", "EC-P256", "--name", "wrongly"),
            "operator",
            CONFLICT,
            "name_taken",
        ),
        (
            ("rollback", "wrongly", "--version", "9"),
            "operator",
            NOT_FOUND,
            "key_not_found",
        ),
        (("decrypt", "wrongly", "AAAA"), "operator", MISMATCH, "decryption_failed"),
        (("rotate", "wrongly"), "auditor", DENIED, "access_denied"),
        (("audit", "events"), "service", DENIED, "access_denied"),
        (("audit", "events"), "operator", DENIED, "access_denied"),
        (("encrypt", "wrongly", "--text", "x"), "administrator", DENIED, None),
        (("list",), "emperor", INVALID, "invalid_input"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_refusals(
    shell: Shell,
    words: tuple[str, ...],
    roles: str,
    status: int,
    code: str | None,
) -> None:
    """
    Each kind of refusal has its own exit code, and the server's stable code.
    """
    shell.run(
        *("create", "AES-256-GCM", "--name", "wrongly"),
        *("--idempotency-key", "wrongly"),
    )

    found = shell.code(*words, status=status, roles=roles)

    assert code in {None, found}


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
