# SPDX-License-Identifier: MIT
"""A development server: found by the client, in memory, and gone when it stops."""

from __future__ import annotations

import os
import signal
import stat
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hsm_cli.main import run as run_client
from hsm_server.main import main
from tests.e2e.processes import ServerProcess, program


class Desk:
    """
    A user with nothing but the commands.

    Args:
        folder: Home of the user, with folders for profiles and temporary files.
    """

    def __init__(self, folder: Path) -> None:
        self.profiles = folder / "config" / "ferrohsm"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.variables = {
            "XDG_CONFIG_HOME": str(self.profiles.parent),
            "TMPDIR": str(self.temporary),
        }
        self.log = folder / "server.log"

    def serve(self) -> ServerProcess:
        """Type the line of the server."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FERROHSM_")}
        command = [*program("hsm-server"), "--dev"]
        return ServerProcess(command, kept | self.variables, self.log)

    def profile(self) -> dict[str, Any]:
        """Return the profile that the server has written."""
        return tomllib.loads((self.profiles / "dev.toml").read_text())


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Give a user."""
    return Desk(tmp_path_factory.mktemp("newcomer"))


@pytest.fixture(scope="module")
def server(desk: Desk) -> Iterator[ServerProcess]:
    """Give a development server that listens; it is stopped by the last test."""
    with desk.serve() as found:
        found.wait_ready()
        yield found


@pytest.fixture
def client(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Give a function that types a line of the client, and returns what it said."""
    for name in filter(lambda one: one.startswith("FERROHSM_"), dict(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", desk.variables["XDG_CONFIG_HOME"])

    def type_line(*words: str) -> tuple[str, str]:
        status = run_client(list(words))
        told = capsys.readouterr()
        assert 0 == status, told.err
        return told.out, told.err

    return type_line


def test_three_commands_to_a_verified_signature(
    server: ServerProcess, client: Any, tmp_path: Path
) -> None:
    """No other word is needed, and each line says that it is a development server."""
    document, signature = tmp_path / "document", tmp_path / "document.sig"
    document.write_bytes(b"hello")

    client("create", "ML-DSA-65", "--name", "release")
    client("sign", "release", str(document), "-o", str(signature))
    out, err = client("verify", "release", str(document), str(signature))
    audit, _ = client("audit", "verify")

    assert "valid" in out.lower()
    assert "dev" in err
    assert "intact" in audit


def test_everybody_is_told(server: ServerProcess, desk: Desk) -> None:
    """It says that nothing lasts, and where the audit log and the console are."""
    assert "DEVELOPMENT SERVER" in server.output
    assert f"audit log: {desk.profile()['audit-log']}\n" in server.output
    assert f"https://127.0.0.1:{server.port}/ui" in server.output


def test_what_it_writes(server: ServerProcess, desk: Desk) -> None:
    """A profile and a private folder, for its user alone; no key is among the files."""
    profile = desk.profile()
    (folder,) = desk.temporary.iterdir()
    files = [desk.profiles / "dev.toml", *folder.iterdir()]

    assert f"https://127.0.0.1:{server.port}" == profile["endpoint"]
    assert server.pid == profile["pid"]
    assert {"endpoint", "ca-bundle", "token-file", "audit-log", "pid"} == set(profile)
    assert {0o700} == {_mode(folder), _mode(desk.profiles)}
    assert {0o600} == set(map(_mode, files))
    others = {path.name for path in files if not path.name.startswith("audit.log")}
    assert {"dev.toml", "ca.pem", "server.pem", "token"} == others


def test_nothing_is_left(server: ServerProcess, desk: Desk) -> None:
    """Profile and folder vanish with the server, which ends with its terminal."""
    os.kill(server.pid, signal.SIGHUP)
    assert 0 == server.wait()
    assert [] == list(desk.temporary.iterdir())
    assert [] == list(desk.profiles.iterdir())


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class Refusals:
    """Lines of a server that doesn't start, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *words: str, **variables: str) -> Result:
        """Type a line."""
        environment: dict[str, str | None] = {
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            **variables,
        }
        runner = CliRunner(env=environment)
        return runner.invoke(main, ["--dev", *words], prog_name="hsm-server")


@pytest.fixture
def refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Refusals]:
    """Give a folder in which nothing is left."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("os.umask", lambda _: 0)
    yield Refusals(tmp_path)
    assert [] == list(temporary.iterdir())


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--bind", "0.0.0.0:0"], "loopback address only"),
        (["--bind", "192.0.2.1:0"], "loopback address only"),
        (["--key-store", "filesystem"], "--key-store (FERROHSM_KEY_STORE)"),
        (["--key-store", "sqlite:/x"], "--key-store"),
        (["--key-dir", "keys"], "--key-dir"),
        (["--approval-store", "file"], "--approval-store"),
        (["--audit-log", "audit.log"], "--audit-log"),
        (["--isolation", "process"], "--isolation"),
        (["--cert", "cert.pem"], "--cert"),
        (["--master-key", "@root.key"], "--master-key"),
        (["--auth-jwt-config", "keys.yaml"], "--auth-jwt-config"),
    ],
)
def test_no_real_server(refusals: Refusals, words: list[str], named: str) -> None:
    """Nothing persists, and no other machine is let in."""
    result = refusals.run(*words)

    assert 2 == result.exit_code
    assert named in result.stderr


def test_neither_a_variable_nor_a_file(refusals: Refusals) -> None:
    """A setting of a real server is not dropped in silence."""
    file = refusals.folder / "hsm.toml"
    file.touch(mode=0o600)
    file.write_text('[storage]\nsqlite-path = "keys.db"\n')
    results = [
        refusals.run(FERROHSM_MASTER_KEY="@root.key", FERROHSM_CERT="cert.pem"),
        refusals.run("--config", str(file)),
    ]

    assert [2, 2] == [result.exit_code for result in results]
    assert "FERROHSM_MASTER_KEY" in results[0].stderr
    assert "FERROHSM_CERT" in results[0].stderr
    assert "--sqlite-path" in results[1].stderr


def test_a_user_without_a_home(
    refusals: Refusals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable that helps is named."""
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    result = refusals.run(XDG_CONFIG_HOME="relative")

    assert 2 == result.exit_code
    assert "Set XDG_CONFIG_HOME" in result.stderr


def test_a_folder_of_profiles_that_others_may_read(refusals: Refusals) -> None:
    """It is refused, with the command that mends it."""
    folder = refusals.folder / "config" / "ferrohsm"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    result = refusals.run()

    assert 3 == result.exit_code
    assert f"chmod 700 {folder}" in result.stderr
