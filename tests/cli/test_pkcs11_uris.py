# SPDX-License-Identifier: MIT
"""Commands that name keys to programs, and that check the way to the token."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote_to_bytes
from uuid import UUID

import pytest

import hsm_core
from tests.cli.pkcs11_support import MODULES, create, module, running_token
from tests.cli.support import Shell
from tests.support import require_program, require_service


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """Give the options of an embedded HSM with a few keys."""
    root = tmp_path / "root.key"
    with hsm_core.open(tmp_path / "hsm", root=root, create=True) as hsm:
        ada = hsm.as_user("ada", roles=["operator"])
        ada.create("EC-P256", name="web")
        ada.create("AES-256-GCM", name="data")
        ada.create("MLKEM768-X25519-SHA3-256", name="hybrid")
    return ["--embedded", str(tmp_path / "hsm"), "--root-key", str(root)]


USER = ("--actor", "ada", "--roles", "operator")


def test_a_uri_names_a_key(
    bare_shell: Shell,
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    The URI has token, CKA_ID and type; it stays the same after a rotation.
    """
    (tmp_path / "hsm").rename(tmp_path / "my hsm;1")
    monkeypatch.chdir(tmp_path)
    options[1] = "my hsm;1"
    text = bare_shell.ok(*USER, "pkcs11", "uri", "web", *options).text.strip()
    root = tmp_path / "root.key"
    with hsm_core.open(options[1], root=root) as hsm:
        key = hsm.as_user("ada", roles=["operator"]).key("web")
        key.rotate()

    parts = dict(p.split("=", 1) for p in text.removeprefix("pkcs11:").split(";"))
    assert {"token", "id", "type"} == set(parts)
    assert b"my hsm;1" == unquote_to_bytes(parts["token"])
    assert UUID(key.id).bytes == unquote_to_bytes(parts["id"])
    assert "private" == parts["type"]
    short = key.id[:8]
    again = bare_shell.ok(*USER, "pkcs11", "uri", short, *options, "--json")
    assert {"uri": text} == again.json
    for words, kind in (("web", "--type", "cert"), "cert"), (("data",), "secret-key"):
        found = bare_shell.ok(*USER, "pkcs11", "uri", *words, *options).text.strip()
        assert found.endswith(f";type={kind}")


def test_keys_that_pkcs11_does_not_have(bare_shell: Shell, options: list[str]) -> None:
    """
    A composite key has no URI.
    """
    outcome = bare_shell(*USER, "pkcs11", "uri", "hybrid", *options)

    assert outcome.code == 2
    assert "PKCS#11 does not support MLKEM768-X25519-SHA3-256 keys" in outcome.err


def test_a_pem_file_holds_the_uri(
    bare_shell: Shell, options: list[str], tmp_path: Path
) -> None:
    """
    The PEM file is a DER sequence of title and URI, and of nothing else.
    """
    uri = bare_shell.ok(*USER, "pkcs11", "uri", "web", *options).text.strip()
    path = tmp_path / "web.pem"
    bare_shell.ok(*USER, "pkcs11", "pem-uri", "web", *options, "--out", str(path))

    shown = subprocess.run(
        [require_program("openssl"), "asn1parse", "-in", str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout

    assert "-----BEGIN PKCS#11 PROVIDER URI-----\n" in path.read_text()
    _, title, name = shown.splitlines()
    assert title.endswith("VISIBLESTRING     :PKCS#11 Provider URI v1.0")
    assert name.endswith(f"UTF8STRING        :{uri}")


def test_the_doctor_finds_the_token(
    bare_shell: Shell,
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Each check has a remedy while programs can't use the token; then all is well.
    """
    module()
    monkeypatch.delenv("P11_KIT_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    without = bare_shell(*USER, "pkcs11", "doctor", *options, "--json")
    path = tmp_path / "run" / "pkcs11.sock"
    monkeypatch.setenv("P11_KIT_SERVER_ADDRESS", f"unix:path={path}")
    stopped = bare_shell(*USER, "pkcs11", "doctor", *options, "--json")
    with running_token(tmp_path):
        running = bare_shell(*USER, "pkcs11", "doctor", "--json")

    assert [1, 1] == [without.code, stopped.code]
    states = [
        {check["name"]: check for check in outcome.json["checks"]}
        for outcome in (without, stopped, running)
    ]
    assert [False, False, True] == [state["Token"]["is_well"] for state in states]
    assert "hsm-cli pkcs11 serve" in states[0]["Token"]["remedy"]
    assert f"--socket {path}" in states[1]["Token"]["remedy"]
    assert f"{path}: protocol 2" == states[2]["Token"]["found"]
    assert all(state["Client module"]["is_well"] for state in states)
    assert "ada, 3 keys" in states[0]["HSM"]["found"]
    assert not states[2]["HSM"]["is_well"]  # the command had no credential


def test_a_module_file_is_enough(
    bare_shell: Shell,
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A module file that starts hsm-cli needs no socket; p11-kit ignores root's own files.
    """
    module()
    monkeypatch.delenv("P11_KIT_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "pkcs11" / "modules"
    folder.mkdir(parents=True)
    (folder / "hsm.module").write_text("remote: |hsm-cli pkcs11 stdio\n")

    outcome = bare_shell(*USER, "pkcs11", "doctor", *options)

    is_read = os.geteuid() != 0
    assert is_read is (outcome.code == 0)
    assert is_read is ("hsm.module" in outcome.text)


def test_programs_start_the_interface(tmp_path: Path) -> None:
    """p11-kit starts hsm-cli by a line of a module file, and a program signs."""
    create(tmp_path, ec="EC-P256")
    tool = require_program("pkcs11-tool")
    found = list(MODULES.glob("*/p11-kit-proxy.so"))
    require_service("p11-kit's proxy module", found)
    served = ["-m", "hsm_cli", *USER, "pkcs11", "stdio"]
    served += ["--embedded", str(tmp_path / "hsm"), "--audit-sync", "bounded"]
    served += ["--root-key", str(tmp_path / "root.key")]
    modules = tmp_path / "pkcs11" / "modules"
    modules.mkdir(parents=True)
    line = f"remote: |{shlex.join([sys.executable, *served])}\n"
    (modules / "hsm.module").write_text(line)
    (tmp_path / "message").write_bytes(b"hello")
    # p11-kit reads no such files of root; in a namespace of its own root is nobody.
    as_user = [require_program("unshare"), "-U"] if os.geteuid() == 0 else []

    done = subprocess.run(
        [
            *(*as_user, tool, "--module", str(found[0]), "--token-label", "hsm"),
            *("--sign", "--mechanism", "ECDSA-SHA256", "--label", "ec"),
            *("--input-file", "message", "--output-file", "signed"),
            *("--signature-format", "openssl"),
        ],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "XDG_CONFIG_HOME": str(tmp_path),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    with hsm_core.open(tmp_path / "hsm", root=tmp_path / "root.key") as hsm:
        key = hsm.as_user("ada", roles=["operator"]).key("ec")
        assert 1 == key.verify(b"hello", (tmp_path / "signed").read_bytes())
