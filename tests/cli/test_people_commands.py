# SPDX-License-Identifier: MIT
"""Commands of ``people``, on a directory."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import pkcs12

from hsm_core.people import (
    CA_FILE,
    CA_KEY_FILE,
    POLICY_FILE,
    REVOCATION_FILE,
    policy_text,
)
from hsm_core.private_ca import PrivateCA
from tests.cli.support import Shell


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give the directory of an HSM without people."""
    now = datetime.now(UTC)
    ca = PrivateCA.create("An HSM", now)
    for name in ("people", "secrets"):
        (tmp_path / name).mkdir(mode=0o700)
    for name, data in (
        (CA_FILE, ca.certificate_pem()),
        (CA_KEY_FILE, ca.key_pem()),
        (REVOCATION_FILE, ca.revocation_list({}, now)),
        (POLICY_FILE, policy_text("version: 1\nextends: default\n").encode()),
    ):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
    return tmp_path


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, directory: Path) -> Shell:
    """Give a shell in another folder, without a server."""
    shell = Shell(monkeypatch, None)
    monkeypatch.setenv("FERROHSM_DIRECTORY", str(directory))
    return shell


def test_from_the_first_to_the_last(shell: Shell, directory: Path) -> None:
    """A person is added, listed, removed, and unknown then."""
    added = shell.ok("people", "add", "ada", "--role", "operator,Auditor")
    listed = shell.ok("people", "list")
    removed = shell("people", "remove", "ada")

    assert "Auditor, Operator" in added.text
    assert ["ada", "Auditor,", "Operator"] == listed.lines[1].split()[:3]
    assert "Removed ada.\n" == removed.text
    unknown = shell("people", "remove", "ada")
    assert 2 == unknown.code
    assert "No person is named ada" in unknown.err


def test_passwords(shell: Shell, directory: Path) -> None:
    """They are shown on a terminal alone, and written to a file otherwise."""
    shown = shell("people", "add", "ada", "--role", "operator", terminal=True)
    kept = shell.ok("--json", "people", "add", "grace", "--role", "auditor")

    line = next(line for line in shown.lines if line.startswith("Password"))
    password = line.split()[1].encode()
    data = (directory / "people/ada.p12").read_bytes()
    assert pkcs12.load_pkcs12(data, password).key is not None
    assert not (directory / "people/ada.password").exists()
    path = Path(kept.json["password_file"])
    assert 0o600 == path.stat().st_mode & 0o777
    assert path.read_text().strip() not in kept.text
    data = Path(kept.json["credential"]).read_bytes()
    assert pkcs12.load_pkcs12(data, path.read_bytes().strip()).key is not None


def test_a_second_credential_is_asked_for(shell: Shell) -> None:
    """Nobody loses a credential by a typo; the exit code is that of a conflict."""
    shell.ok("people", "add", "ada", "--role", "operator")

    again = shell("people", "add", "ada", "--role", "auditor")

    assert 5 == again.code
    assert "--replace" in again.err
    assert (
        "Auditor"
        in shell.ok("people", "add", "ada", "--role", "auditor", "--replace").text
    )


def test_a_lost_credential(shell: Shell) -> None:
    """Without roles, a new credential has those of before; nobody new gets none."""
    shell.ok("people", "add", "ada", "--role", "operator,auditor")

    again = shell.ok("people", "add", "ada", "--replace")
    nobody = shell("people", "add", "eve", "--replace")

    assert "Auditor, Operator" in again.text
    assert 2 == nobody.code
    assert "needs at least one role" in nobody.err


def test_who_is_left(shell: Shell) -> None:
    """A removal that leaves nobody to decide says so."""
    for name, role in (("ada", "administrator"), ("grace", "auditor")):
        shell.ok("people", "add", name, "--role", role)

    first, second = (shell("people", "remove", name) for name in ("grace", "ada"))

    assert "nobody can approve requests" in first.err
    assert "no Administrator is left" in second.err


def test_another_directory(shell: Shell, tmp_path: Path) -> None:
    """The message says which one to pass."""
    refused = shell("people", "list", "--directory", str(tmp_path / "people"))

    assert 2 == refused.code
    assert "Pass the directory of the HSM" in refused.err
