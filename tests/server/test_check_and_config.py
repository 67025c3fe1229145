# SPDX-License-Identifier: MIT
"""`check` and `config`: what is wrong, what a start would do, and origins."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hsm_core.factory import open_hsm
from hsm_core.private_ca import PrivateCA
from hsm_core.secret_input import fingerprint
from hsm_core.settings import KeyStoreKind, Settings
from hsm_server.commands import serve as program
from hsm_server.config.exit_codes import ExitCode
from hsm_server.identity.token_keys import public_key_set
from hsm_server.main import main
from hsm_server.starting import Start
from tests.server.issuer_kit import GITHUB, GITLAB, ISSUED, SPIFFE, mapping_policy
from tests.server.support import b64
from tests.support import REPOSITORY

ROOT, AUDIT = bytes(range(32)), bytes(range(32, 64))
FILE = """
[listener]
cert = "server.pem"
key = "server.pem"

[secrets]
master-key = "@root.key"
hmac-key = "@audit.key"
auth-jwt-secret = "text:a secret of thirty-two bytes or more"

[storage]
key-store = "{kind}"
"""


@pytest.fixture(scope="module")
def certificate() -> bytes:
    """Give the listener's file."""
    now = datetime.now(UTC)
    return PrivateCA.create("Test CA", now).issue_server(["hsm.example.com"], now)


class Desk:
    """
    An operator with a configuration file.

    Args:
        folder: Its folder.

        kind: Kind of the key store.

        certificate: Key and certificate of the listener.
    """

    def __init__(self, folder: Path, kind: KeyStoreKind, certificate: bytes) -> None:
        self.folder, self.kind = folder, kind
        self.write("server.pem", certificate.decode())
        self.write("root.key", b64(ROOT))
        self.write("audit.key", b64(AUDIT))
        self.write("hsm.toml", FILE.format(kind=kind))

    @property
    def settings(self) -> Settings:
        """Where the stores lie."""
        data = self.folder / "data"
        return Settings(
            key_store=self.kind,
            key_dir=data / "keys",
            sqlite_path=data / "keys.sqlite",
            approval_store="file",
        )

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        """Write a file."""
        path = self.folder / name
        path.touch()
        path.chmod(mode)
        path.write_text(text)
        return path

    def add(self, text: str) -> None:
        """Add lines to the file."""
        path = self.folder / "hsm.toml"
        path.write_text(f"{path.read_text()}{text}\n")

    def run(self, command: str, *words: str, **variables: str) -> Result:
        """Run a command with the file."""
        words = (command, "--config", str(self.folder / "hsm.toml"), *words)
        environment: dict[str, str | None] = {**variables}
        return CliRunner(env=environment).invoke(main, words, prog_name="hsm-server")

    def names(self) -> set[str]:
        """Return the paths of all files."""
        return {str(path) for path in self.folder.rglob("*")}

    def open(self) -> Any:
        """Open the HSM."""
        (self.folder / "data").mkdir(mode=0o700, exist_ok=True)
        return open_hsm(self.settings, master_key=ROOT, hmac_key=AUDIT, test_all=False)


@pytest.fixture(params=[KeyStoreKind.FILESYSTEM, KeyStoreKind.SQLITE])
def desk(request: pytest.FixtureRequest, tmp_path: Path, certificate: bytes) -> Desk:
    """Give an operator of each kind of store."""
    return Desk(tmp_path, request.param, certificate)


@pytest.fixture
def files(tmp_path: Path, certificate: bytes) -> Desk:
    """Give an operator of a store in files."""
    return Desk(tmp_path, KeyStoreKind.FILESYSTEM, certificate)


@pytest.mark.parametrize("output", [">/dev/full", ">&-"])
@pytest.mark.parametrize(
    "words", ["--version", "--help", "check", "config", "init new --yes"]
)
def test_output_that_can_not_be_written(
    tmp_path: Path, words: str, output: str
) -> None:
    """It is an error, told in one line; nothing is left behind."""
    done = subprocess.run(
        [
            "sh",
            "-c",
            f'"$@" {words} {output}',
            "sh",
            sys.executable,
            "-m",
            "hsm_server",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={name: text for name, text in os.environ.items() if "PYTHON" not in name},
    )

    reason = "No space left on device." if "full" in output else "Bad file descriptor."
    assert 1 == done.returncode
    assert reason in done.stderr
    assert 1 == len(done.stderr.splitlines())
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["serve", "check", "config"])
@pytest.mark.parametrize("text", [None, "[no\\u001b]", "['\x1b[31m']\nx=1"])
def test_no_name_controls_the_terminal(
    tmp_path: Path, command: str, text: str | None
) -> None:
    """An error shows the escape sequence in a name, and does not send it."""
    path = tmp_path / "red\x1b[31m"
    if text is None:
        path.mkdir()
    else:
        path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "hsm_server", command, "--config", str(path)],
        capture_output=True,
        text=True,
    )

    assert 2 == done.returncode
    assert "red\\x1b[31m" in done.stderr
    assert "\x1b" not in done.stderr


class TestCheck:
    def test_a_new_hsm(self, desk: Desk) -> None:
        """It says that a start would create one, and creates nothing."""
        before = desk.names()
        result = desk.run("check")

        assert 0 == result.exit_code, result.output
        assert f"root key {fingerprint(ROOT)}" in result.stdout
        assert "hsm.example.com, valid until" in result.stdout
        assert "A start creates a new HSM" in result.stdout
        assert before == desk.names()

    def test_an_existing_one(self, desk: Desk) -> None:
        """Its root key is compared, and nothing changes."""
        with desk.open():
            pass
        before = {p: p.read_bytes() for p in desk.folder.rglob("*") if p.is_file()}
        result = desk.run("check")

        assert 0 == result.exit_code, result.output
        assert "opens with this root key" in result.stdout
        assert before == {
            p: p.read_bytes() for p in desk.folder.rglob("*") if p.is_file()
        }

    def test_while_a_server_runs(self, desk: Desk) -> None:
        """It is no fault, and the server goes on."""
        with desk.open() as hsm:
            result = desk.run("check")
            assert hsm is not None

        assert 0 == result.exit_code, result.output
        is_compared = desk.kind == KeyStoreKind.FILESYSTEM
        words = "opens with this root key" if is_compared else "is in use"
        assert words in result.stdout

    def test_a_full_disk(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """A start could write nothing there."""
        desk.open().close()
        full = list(os.statvfs(desk.folder))
        full[4] = 0
        monkeypatch.setattr("os.statvfs", lambda _: os.statvfs_result(full))

        done = desk.run("check")

        place = desk.folder / "data"
        assert f"No space is left on the file system of {place}." in done.output
        assert ExitCode.OK == done.exit_code

    def test_another_root_key(self, desk: Desk) -> None:
        """A start would end with 4, and so does this."""
        with desk.open():
            pass
        desk.write("root.key", b64(AUDIT))
        result = desk.run("check")

        assert 4 == result.exit_code
        assert "error   key store: The root key does not match" in result.stdout

    def test_a_damaged_ring(self, files: Desk) -> None:
        """It is told from a wrong key."""
        with files.open():
            pass
        ring = files.folder / "data/keys/meta/ring"
        whole = ring.read_bytes()
        ring.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))

        assert 8 == files.run("check").exit_code

    @pytest.mark.parametrize(
        ("text", "mode", "status", "words"),
        [
            (
                b64(ROOT),
                0o600,
                0,
                f"this server, {fingerprint(ROOT)}",
            ),
            (b64(AUDIT), 0o600, 4, f"has fingerprint {fingerprint(AUDIT)}"),
            (b64(ROOT), 0o644, 3, "has mode 0644"),
            ("text:short", 0o600, 2, "must be 32 bytes"),
        ],
    )
    def test_a_copy_of_the_root_key(
        self, files: Desk, text: str, mode: int, status: int, words: str
    ) -> None:
        """By its fingerprint one sees which it is, and no secret is told."""
        copy = files.write("copy.key", text, mode)
        result = files.run("check", "--root-copy", str(copy))

        assert status == result.exit_code
        assert words in result.stdout
        assert text not in result.output

    def test_a_certificate_that_ends_soon(self, files: Desk) -> None:
        """It is a warning, as in the log of a server."""
        then = datetime.now(UTC) - timedelta(days=85)
        authority = PrivateCA.create("Test CA", then)
        data = authority.issue_server(["hsm.example.com"], then)
        files.write("server.pem", data.decode())
        result = files.run("check")

        assert 0 == result.exit_code, result.output
        assert "warning The ECDSA certificate expires at" in result.stdout

    def test_a_copy_that_is_not_there(self, files: Desk) -> None:
        """It is named."""
        result = files.run("check", "--root-copy", str(files.folder / "none"))

        assert 2 == result.exit_code
        assert "--root-copy" in result.stdout

    @pytest.mark.parametrize(
        ("lines", "name", "text", "status", "words"),
        [
            ('[policy]\npolicy-config="p.yaml"', "p.yaml", "a: [", 2, "error   policy"),
            ('retention-config="r.yaml"', "r.yaml", "x: 1", 2, "retention policy: "),
            (
                '[authentication]\nauth-jwt-config="t.yaml"',
                *("t.yaml", "keys: 1", 2, "error   token keys: "),
            ),
            (
                '[authentication]\noidc-config="o.yaml"',
                *("o.yaml", "issuer: 1", 2, "error   OpenID Connect: "),
            ),
            ("", "server.pem", "none", 9, "error   certificates: "),
            ("", "audit.key", "none", 2, "error   secrets: hmac-key must be"),
            ("approval-dir='data/keys/a'", "x", "", 2, "error   key store: "),
        ],
    )
    def test_every_file_is_read(
        self, files: Desk, lines: str, name: str, text: str, status: int, words: str
    ) -> None:
        """A fault in it is one here, with the status that a start would end with."""
        files.add(lines)
        files.write(name, text)
        result = files.run("check")

        assert status == result.exit_code, result.output
        assert words in result.stdout
        assert 1 == result.stdout.count("error ")

    def test_all_faults_at_once(self, files: Desk) -> None:
        """One run tells them all."""
        files.write("server.pem", "none")
        files.write("audit.key", "none")
        files.add('[policy]\npolicy-config = "none.yaml"')
        result = files.run("check")

        assert 3 == result.stdout.count("error ")

    def test_nobody_could_sign_in(self, files: Desk) -> None:
        """Token keys or certificates are needed."""
        text = (files.folder / "hsm.toml").read_text()
        kept = [line for line in text.splitlines() if "jwt" not in line]
        files.write("hsm.toml", "\n".join(kept))
        result = files.run("check")

        assert 2 == result.exit_code
        assert "a way to authenticate" in result.stdout

    def test_what_changes(self, files: Desk) -> None:
        """Settings that differ from a former file are listed, secrets without value."""
        former = files.write("former.toml", FILE.format(kind="sqlite"))
        text = (files.folder / "hsm.toml").read_text().replace("a secret", "anotherone")
        files.write("hsm.toml", f"{text}audit-retention-days = 30\n")
        result = files.run("check", "--previous", str(former))

        assert 'storage.key-store changes: "sqlite" → "filesystem".' in result.stdout
        assert "audit-retention-days changes: not set → 30." in result.stdout
        assert "secrets.auth-jwt-secret changes." in result.stdout
        assert "audit records older than 30 days" in result.stdout
        assert "anotherone" not in result.output

    def test_the_page(self, tmp_path: Path) -> None:
        """An HSM of `init` is checked as the reference shows, line by line."""
        runner, where = CliRunner(), str(tmp_path / "hsm")
        people = ("--host", "hsm.example.com", "--admin", "ada", "--second", "grace")
        made = runner.invoke(main, ["init", where, "--yes", *people])
        assert 0 == made.exit_code, made.output
        copy = f"{where}/secrets/root.key"
        words = ["check", "--config", f"{where}/hsm.toml", "--root-copy", copy]
        found = runner.invoke(main, words, prog_name="hsm-server")
        page = (REPOSITORY / "docs/reference/settings-server.md").read_text()
        (block,) = re.findall(r"```text\n\$ hsm-server check.*?\n(.*?)```", page, re.S)

        assert 0 == found.exit_code, found.output
        lines = [one for one in found.stdout.splitlines() if "as root" not in one]
        shown = block.replace("usb/root.key", copy).replace("/srv/hsm", where)
        assert list(map(_plain, shown.splitlines())) == list(map(_plain, lines))


class TestConfig:
    def test_origins(self, files: Desk) -> None:
        """Each value has one: flag, variable, file with line, or default."""
        result = files.run("config", "--workers=3", FERROHSM_MAX_AAD_BYTES="7")
        origins = dict(_origins(result.stdout))
        path = files.folder / "hsm.toml"

        assert 0 == result.exit_code, result.output
        assert "--workers" == origins["workers = 3"]
        assert "FERROHSM_MAX_AAD_BYTES" == origins["max-aad-bytes = 7"]
        assert f"{path}, line 12" == origins['key-store = "filesystem"']
        assert "default" == origins["max-connections = 1000"]

    def test_no_secret(self, files: Desk) -> None:
        """Where one lies is shown, and one itself never is."""
        url = "https://who:p4ss@word@store.example/x?pin=1234"
        result = files.run(
            *("config", "--key-store", f"vault:{url}"),
            *("--auth-jwt-jwks-url", "https://keys.example/set?key=s3same"),
            FERROHSM_MASTER_KEY=b64(ROOT),
        )

        checked = files.run("check", "--key-store", f"vault:{url}")

        assert 0 == result.exit_code, result.output
        assert "vault:https://***@store.example/x?***" in checked.stdout
        assert "# auth-jwt-secret is set, and not shown" in result.stdout
        assert f'"@{files.folder}/audit.key"' in result.stdout
        assert '"vault:https://***@store.example/x?***"' in result.stdout
        for secret in (
            *(b64(ROOT), "thirty-two"),
            *("p4ss", "word@", "1234", "s3same"),
        ):
            assert secret not in result.output + checked.output

    def test_nothing_is_required(self) -> None:
        """A new user sees the defaults."""
        result = CliRunner().invoke(main, ["config"], prog_name="hsm-server")

        assert 0 == result.exit_code
        assert "# master-key is not set" in result.stdout

    def test_it_is_a_file(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server with its output is the same server, wherever the file lies."""
        starts: list[Start] = []
        monkeypatch.setattr(program, "start", starts.append)
        monkeypatch.setattr("signal.signal", lambda *_: None)
        monkeypatch.setattr("os.umask", lambda _: 0)
        more = ("--provider=p256=pyca", "--trusted-proxy=192.0.2.0/24", "--no-console")
        printed = desk.run("config", *more).stdout
        assert desk.run("serve", *more).exit_code == 0
        folder = desk.folder / "elsewhere"
        folder.mkdir()
        desk.folder = folder
        desk.write("hsm.toml", printed)
        secret = "text:a secret of thirty-two bytes or more"
        result = desk.run("serve", FERROHSM_JWT_SECRET=secret)

        assert 0 == result.exit_code, result.output
        assert starts[0].settings == starts[1].settings
        assert starts[0].launch == starts[1].launch

    def test_a_fault_of_the_file(self, files: Desk) -> None:
        """It is one here, too."""
        files.add("nothing = 1")

        assert 2 == files.run("config").exit_code
        assert "storage.nothing" in files.run("check").stderr


def _plain(line: str) -> str:
    """Return a line without what differs from one HSM to the next."""
    return re.sub(r"[0-9A-F]{4}(-[0-9A-F]{4}){2}|\d{4}-\d\d-\d\d", "…", line)


def _origins(text: str) -> list[tuple[str, str]]:
    assert tomllib.loads(text)
    parts = [line.rpartition("  # ") for line in text.splitlines() if "  # " in line]
    return [(setting.strip(), origin) for setting, _, origin in parts]


def test_issuers_and_policy_are_compared(tmp_path: Path, certificate: bytes) -> None:
    """Issuers without a rule, and rules without an issuer, are probably mistakes."""
    desk = Desk(tmp_path, KeyStoreKind.SQLITE, certificate)
    desk.write("policy.yaml", mapping_policy("github", "gitlab").text)
    desk.add("[policy]\npolicy-config = 'policy.yaml'")
    none = desk.run("check")
    desk.add("[authentication]\ntoken-issuers = 'issuers.yaml'")
    both = [{"issuer": GITHUB}, {"issuer": SPIFFE, "jwks_file": "bundle.json"}]
    desk.write("issuers.yaml", json.dumps({"issuers": both}))
    missing = desk.run("check")
    desk.write("bundle.json", public_key_set(ISSUED["spiffe"].trust().keys).decode())
    found = desk.run("check")

    for issuer in (GITHUB, GITLAB):
        assert f"The policy has identities of {issuer}, which is no" in none.output
    assert ExitCode.OK == none.exit_code == found.exit_code
    assert ExitCode.OK != missing.exit_code
    assert "error   token issuers:" in missing.output
    assert "issuers.yaml, 2 issuers" in found.output
    assert f"No identity of the policy matches tokens of {SPIFFE}." in found.output
    assert f"The policy has identities of {GITLAB}, which is no" in found.output
    assert GITHUB not in found.output


@pytest.mark.parametrize("command", ["check", "config"])
def test_the_help_is_short(command: str) -> None:
    """Settings are in the help of `serve`."""
    result = CliRunner().invoke(main, [command, "--help"], prog_name="hsm-server")

    assert 24 >= len(result.stdout.splitlines())
    assert os.linesep in result.stdout
