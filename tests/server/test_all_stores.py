# SPDX-License-Identifier: MIT
"""`--store`: all stores in one setting, and the password that it may hold."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hsm_server.commands import serve as program
from hsm_server.main import main
from hsm_server.starting import Start
from tests.server.support import b64

PASSWORD = "pass-word-7"
ADDRESS = "postgresql://ada@db.example/hsm"
WITH_PASSWORD = f"postgresql://ada:{PASSWORD}@db.example/hsm"
BESIDE = ("--node-name", "a", "--cert", "c.pem", "--key", "k.pem")
SECRETS = {
    "FERROHSM_MASTER_KEY": b64(bytes(range(32))),
    "FERROHSM_HMAC_KEY": b64(bytes(range(32, 64))),
    "FERROHSM_JWT_SECRET": "text:a secret of thirty-two bytes or more",
}


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Start]]:
    """Give what would be started."""
    found: list[Start] = []
    monkeypatch.setattr(program, "start", found.append)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("os.umask", lambda _: 0)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    yield found
    for name in ("FERROHSM_STORE", "PGPASSWORD"):
        os.environ.pop(name, None)


def run(*words: str, **variables: str) -> Result:
    """Run a command of the server."""
    environment: dict[str, str | None] = {**SECRETS, **variables}
    return CliRunner(env=environment).invoke(main, words, prog_name="hsm-server")


def written(text: str, mode: int = 0o600) -> str:
    """Write a file, and return how it is named."""
    path = Path("store.url")
    path.touch()
    path.chmod(mode)
    path.write_text(f"{text}\n")
    return f"@{path}"


def test_a_password_in_the_environment(starts: list[Start]) -> None:
    """It goes to the vault alone, and nothing is warned of."""
    result = run("serve", *BESIDE, FERROHSM_STORE=WITH_PASSWORD)
    (start,) = starts

    assert 0 == result.exit_code, result.output
    assert "warning: other users" not in result.stderr
    assert ADDRESS == start.settings.core.store
    assert PASSWORD == start.box.environment["PGPASSWORD"]
    assert not {"FERROHSM_STORE", "PGPASSWORD"} & os.environ.keys()


def test_a_password_in_a_file(starts: list[Start]) -> None:
    """A file of the owner alone holds the whole address."""
    result = run("serve", *BESIDE, "--store", written(WITH_PASSWORD))
    (start,) = starts

    assert 0 == result.exit_code, result.output
    assert "warning: other users" not in result.stderr
    assert PASSWORD == start.box.environment["PGPASSWORD"]


def test_a_file_open_to_others(starts: list[Start]) -> None:
    """It is refused, as every file with a secret."""
    result = run("serve", *BESIDE, "--store", written(WITH_PASSWORD, 0o644))

    assert not starts
    assert "mode 0600" in result.stderr


def test_libpq_finds_its_own_password(starts: list[Start]) -> None:
    """PGPASSWORD and PGPASSFILE reach the vault."""
    run(
        *("serve", *BESIDE, "--store", ADDRESS),
        PGPASSWORD=PASSWORD,
        PGPASSFILE="/secrets/pgpass",
    )
    (start,) = starts

    assert PASSWORD == start.box.environment["PGPASSWORD"]
    assert "/secrets/pgpass" == start.box.environment["PGPASSFILE"]


def test_a_password_in_arguments_is_warned_of(starts: list[Start]) -> None:
    """Other users can read it there."""
    result = run("serve", *BESIDE, "--store", WITH_PASSWORD)

    assert 1 == len(starts)
    assert "other users can read the password of --store" in result.stderr
    assert PASSWORD not in result.output


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_password_in_the_configuration_file(starts: list[Start], mode: int) -> None:
    """The file must then be its owner's alone."""
    text = f'[storage]\nstore = "{WITH_PASSWORD}"\nnode-name = "a"\n'
    file = written(text, mode).removeprefix("@")
    result = run("serve", "--config", file, *BESIDE[2:])

    assert (mode == 0o600) == bool(starts), result.output
    assert ("chmod 600" in result.stderr) == (mode == 0o644)
    assert PASSWORD not in result.output


@pytest.mark.parametrize(
    "store",
    [
        WITH_PASSWORD,
        f"{ADDRESS}?password={PASSWORD}",
        f"{ADDRESS}?sslpassword={PASSWORD}",
        f"postgresql://ada:a#{PASSWORD}@db.example/hsm",
        f"postgresql://ada:a?{PASSWORD}@db.example/hsm",
        f"postgresql://ada:a/{PASSWORD}@db.example/hsm",
    ],
)
@pytest.mark.parametrize("command", ["config", "check", "serve"])
def test_it_is_never_shown(starts: list[Start], command: str, store: str) -> None:
    """No command prints it, whatever else is wrong."""
    settings = (*BESIDE, "--backup-dir", "b")
    results = [
        run(command, *settings, FERROHSM_STORE=store),
        run(command, *settings[2:], FERROHSM_STORE=store),
        run(command, *settings, "--key-store", "memory", FERROHSM_STORE=store),
        run(command, *settings, FERROHSM_STORE=store.replace("postgresql", "mysql")),
    ]

    assert all(PASSWORD not in result.output for result in results)
    assert all(PASSWORD not in repr(start) for start in starts)
    assert 2 == results[2].exit_code
    assert 2 == results[3].exit_code


def test_what_config_prints_is_a_file(starts: list[Start]) -> None:
    """It has the address without its password, and no setting of a single store."""
    shown = run("config", *BESIDE, FERROHSM_STORE=WITH_PASSWORD).stdout

    assert f"store = {json.dumps(ADDRESS)}" in shown
    assert "# key-store is not set" in shown
    assert "# audit-log is not set" in shown


@pytest.mark.parametrize(
    "flag",
    ["key-store=sqlite", "sqlite-path=x", "audit-store=file", "approval-dir=x"],
)
def test_single_stores_are_refused_beside_it(starts: list[Start], flag: str) -> None:
    """Both can't be meant."""
    result = run("serve", *BESIDE, f"--{flag}", "--store", "sqlite:data")

    assert not starts
    assert 2 == result.exit_code
    assert "can't be used with --store (FERROHSM_STORE)" in result.stderr


def test_a_node_has_a_name(starts: list[Start]) -> None:
    """A cluster tells its nodes apart by it."""
    result = run("serve", *BESIDE[2:], "--store", ADDRESS)

    assert not starts
    assert "node_name must have 1 to 40 letters" in result.stderr


@pytest.mark.parametrize("flag", ["--key-store", "--approval-store"])
def test_postgresql_holds_all_stores(starts: list[Start], flag: str) -> None:
    """One store there and others elsewhere are no HSM of several nodes."""
    result = run("serve", *BESIDE, flag, ADDRESS)

    assert not starts
    assert "PostgreSQL holds all stores or none." in result.stderr


def test_databases_in_a_folder(starts: list[Start]) -> None:
    """A relative folder begins where the configuration file lies."""
    folder = Path("etc").absolute()
    folder.mkdir()
    (folder / "hsm.toml").write_text('[storage]\nstore = "sqlite:data"\n')
    result = run("serve", "--config", str(folder / "hsm.toml"), *BESIDE)
    (start,) = starts

    assert 0 == result.exit_code, result.output
    assert folder / "data/keys.sqlite" == start.settings.core.sqlite_path
    assert folder / "data/audit.sqlite" == start.settings.core.audit_sqlite_path
    assert folder / "data/approvals.sqlite" == start.settings.core.approval_sqlite_path
