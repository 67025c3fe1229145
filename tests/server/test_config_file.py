# SPDX-License-Identifier: MIT
"""The configuration file: every setting is a key, and every fault has its place."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from hsm_server.commands import serve as program
from hsm_server.config.annotations import Setting
from hsm_server.config.options import (
    GROUPS,
    UNAVAILABLE,
    ListOption,
    options_in,
    table_of,
)
from hsm_server.main import main
from hsm_server.starting import Start
from tests.server.support import b64
from tests.support import REPOSITORY

KEY = b64(bytes(range(32)))
SECRETS = f"""
[secrets]
master-key = "{KEY}"
hmac-key = "{b64(bytes(32))}"
auth-jwt-secret = "text:a secret of thirty-two bytes or more"
"""
TLS = """
[listener]
cert = "tls/cert.pem"
key = ["tls/key.pem"]
"""


class Program:
    """The command, up to where a server would start."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "hsm.toml"
        self.starts: list[Start] = []

    def write(self, text: str, mode: int = 0o600) -> None:
        """Write the file."""
        self.path.touch()
        self.path.chmod(mode)
        self.path.write_text(text)

    def run(self, *words: str, **variables: str) -> Result:
        """Start a server with the file."""
        words = ("--config", str(self.path), *words)
        environment: dict[str, str | None] = {**variables}
        return CliRunner(env=environment).invoke(main, words, prog_name="hsm-server")

    def refusal(self, text: str, *words: str, **variables: str) -> str:
        """Return what is said of a file that is refused."""
        self.write(text)
        result = self.run(*words, **variables)
        assert 2 == result.exit_code, result.output
        assert not self.starts
        return result.stderr


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Program:
    """Give a command that notes what would be started."""
    found = Program(tmp_path)
    monkeypatch.setattr(program, "start", found.starts.append)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("os.umask", lambda _: 0)
    return found


def test_a_file_says_everything(server: Program, tmp_path: Path) -> None:
    """Nothing else is needed, and its paths begin where it lies."""
    server.write(
        f"{SECRETS}{TLS}[limits]\nmax-connections = 7\n"
        '[storage]\nkey-store = "sqlite"\nsqlite-path = "data/k.db"\n'
        "[authentication]\nconsole = false\n"
        '[cryptography]\nprovider = ["Ed25519=libcrypto,pyca"]\n'
        "[service]\ndrain-timeout-secs = 2\n"
    )
    result = server.run()
    (start,) = server.starts
    found = start.settings

    assert 0 == result.exit_code, result.output
    assert found.tls is not None
    assert tmp_path / "tls/cert.pem" == found.tls.pairs[0].cert
    assert tmp_path / "tls/key.pem" == found.tls.pairs[0].key
    assert tmp_path / "data/k.db" == found.core.sqlite_path
    assert tmp_path / "data/audit.log" == found.core.audit_log
    assert 7 == found.limits.max_connections
    assert not found.console.is_on
    assert {"Ed25519": ("libcrypto", "pyca")} == found.core.providers
    assert 2.0 == found.drain_timeout_seconds
    assert bytes(range(32)) == start.box.secrets().master_key


def test_the_file_of_the_page(server: Program, tmp_path: Path) -> None:
    """What the reference shows is taken."""
    page = (REPOSITORY / "docs/reference/settings-server.md").read_text()
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "secrets").mkdir()
    for name in ("root", "audit", "tokens"):
        secret = tmp_path / "secrets" / f"{name}.key"
        secret.touch(mode=0o600)
        secret.write_text(KEY)
    server.write(text, mode=0o644)
    result = server.run()

    assert 0 == result.exit_code, result.output
    assert "0.0.0.0" == server.starts[0].settings.bind.host  # noqa: S104 (the page)


def test_flag_before_variable_before_file(server: Program) -> None:
    """One of them decides, in this order."""
    server.write(f"{SECRETS}{TLS}[limits]\nmax-connections = 1\nmax-aad-bytes = 1\n")
    server.run("--max-connections=3", FERROHSM_MAX_CONNECTIONS="2")
    server.run(FERROHSM_MAX_CONNECTIONS="2")
    server.run()

    found = [start.settings.limits for start in server.starts]
    assert [3, 2, 1] == [limits.max_connections for limits in found]
    assert {1} == {limits.aad_bytes for limits in found}


def test_a_default_path_lies_beside_the_file_too(
    server: Program, tmp_path: Path
) -> None:
    """A server opens the same keys wherever it is started."""
    server.write(SECRETS + TLS)
    server.run()
    server.run("--key-dir=here/keys")

    first, second = (start.settings.core for start in server.starts)
    assert tmp_path / "data/keys" == first.key_dir
    assert Path("here/keys") == second.key_dir
    assert Path("here/audit.log") == second.audit_log


@pytest.mark.parametrize("scheme", ["filesystem", "sqlite"])
def test_the_path_in_a_uri(server: Program, tmp_path: Path, scheme: str) -> None:
    """It is one like the others, and stands once."""
    store = f'[storage]\nkey-store = "{scheme}:data/x"\n'
    server.write(SECRETS + TLS + store)
    server.run()
    other = {"filesystem": "key-dir", "sqlite": "sqlite-path"}[scheme]

    assert f"{scheme}:{tmp_path}/data/x" == server.starts.pop().settings.core.key_store
    twice = f'{SECRETS}{TLS}{store}{other} = "y"\n'
    assert f"--{other}" in server.refusal(twice)


def test_secrets_in_files(server: Program, tmp_path: Path) -> None:
    """A name is relative to the file, which then needs no mode of its own."""
    secret = tmp_path / "root.key"
    secret.touch(mode=0o600)
    secret.write_text(KEY)
    server.write(
        f'{TLS}[secrets]\nmaster-key = "@root.key"\nhmac-key = "@root.key"\n'
        'auth-jwt-secret = "@root.key"\n',
        mode=0o644,
    )

    assert 0 == server.run().exit_code
    assert bytes(range(32)) == server.starts[0].box.secrets().master_key


@pytest.mark.parametrize(("mode", "words"), [(0o644, "chmod 600"), (0o622, "writable")])
def test_a_file_open_to_others(server: Program, mode: int, words: str) -> None:
    """A secret in it is for its owner alone, and so is a change of it."""
    server.write(SECRETS + TLS, mode)
    result = server.run()

    assert 3 == result.exit_code
    assert words in result.stderr
    assert KEY not in result.output


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[limits]\nmax-connections = 0\n", 2, "limits.max-connections: 0 is not in"),
        ('[limits]\nmax-connections = "7"\n', 2, "a whole number, without quotes, got"),
        ("[limits]\nmax-connections = true\n", 2, "got true or false"),
        ("[limits]\nmax-connections = 7.5\n", 2, "got a number"),
        ("[service]\ndrain-timeout-secs = nan\n", 2, "must be a finite number"),
        ("[authentication]\n\nconsole = 1\n", 3, "must be true or false, got a whole"),
        ("[listener]\nbind = 8443\n", 2, "must be a string, in quotes"),
        ('[listener]\nbind = "8443"\n', 2, "listener.bind: must be HOST:PORT"),
        ('[listener]\ncert = [\n  "a",\n  7,\n]\n', 2, "array of strings, got a whole"),
        ("[listener]\ncert = []\n", 2, "got an empty one"),
        ('[listener]\ncert = "a,b"\n', 2, "not have a comma"),
        ('[policy]\npolicy-profile = "lax"\n', 2, "'lax' is not one of 'default'"),
        ("[limits]\nmax-conections = 1\n", 2, "Did you mean max-connections?"),
        ("[limits]\nmax_connections = 1\n", 2, "Did you mean max-connections?"),
        ('[limits]\nbind = "x"\n', 2, "limits.bind belongs in the table [listener]"),
        ('bind = "127.0.0.1:1"\n', 1, "bind belongs in the table [listener]"),
        ("[limit]\nx = 1\n", 2, "there is no table [limit]. Did you mean limits?"),
        ("[zzz]\nx = 1\n", 2, "Tables are listener, storage"),
        ("[listener.bind]\nhost = 1\n", 1, "got a table"),
        ("[[listener]]\nbind = 1\n", 1, "there is no setting listener"),
        ("limits.max-connections = 0\n", 1, "limits.max-connections: 0 is not in"),
        ("limits = { max-connections = 0 }\n", 1, "limits.max-connections: 0"),
        ("# [x]\r\n[limits]\r\n\r\nmax-aad-bytes = -1\r\n", 4, "max-aad-bytes"),
        (
            '[authentication]\nauth-jwt-issuer = """\n[x]\n"""\n[limits]\nz = 1',
            *(6, "limits.z"),
        ),
        ('[service]\nweb-dir = "x"\n', 2, "service.web-dir is not available in this"),
        ("[limits]\nmax-connections 1\n", 2, "not valid TOML"),
        ("[limits]\n[limits]\n", 2, "not valid TOML"),
    ],
)
def test_a_fault_has_its_place(
    server: Program, text: str, line: int, words: str
) -> None:
    """File, line, key and what is allowed."""
    told = server.refusal(text)

    assert told.startswith(f"hsm-server: error: {server.path}, line {line}: ")
    assert words in told


def test_a_file_of_brackets(server: Program) -> None:
    """However deep, it is refused."""
    assert "nested too deeply" in server.refusal(f"a = {'[' * 5000}")


def test_all_faults_at_once(server: Program) -> None:
    """Whoever mends a file isn't sent back once for each."""
    told = server.refusal("[limits]\nmax-connections = 0\nmax-aad-bytes = -1\nx = 1\n")

    assert ["line 2", "line 3", "line 4"] == [
        part.partition(":")[0] for part in told.split(f"{server.path}, ")[1:]
    ]


def test_a_value_is_wrong_though_a_flag_replaces_it(server: Program) -> None:
    """The file is one that works by itself."""
    told = server.refusal("[limits]\nmax-connections = 0\n", "--max-connections=1")

    assert "limits.max-connections" in told


@pytest.mark.parametrize("text", ["[secrets]\nmaster-key = 7\n", f"[secrets]\n{KEY}"])
def test_no_secret_is_told(server: Program, text: str) -> None:
    """Neither of another type nor of a line that is no TOML."""
    assert KEY not in server.refusal(text)


def test_a_file_that_is_not_there(server: Program) -> None:
    """Nor one that is not text."""
    result = server.run()
    assert 2 == result.exit_code
    assert f"{server.path} can't be read" in result.stderr

    server.path.touch(mode=0o600)
    server.path.write_bytes(b"\xff")
    assert "must be UTF-8" in server.run().stderr


def test_a_variable_names_the_file(server: Program) -> None:
    """As every other flag has one."""
    server.write("[limits]\nmax-connections = 0\n")
    environment: dict[str, str | None] = {"FERROHSM_CONFIG": str(server.path)}
    result = CliRunner(env=environment).invoke(main, [], prog_name="hsm-server")

    assert f"{server.path}, line 2" in result.stderr


def _toml(option: click.Option) -> str:
    """Return a value of an option's type, as TOML."""
    match option.type:
        case click.Choice(choices=choices):
            return next(f'"{one}"' for one in choices if one != option.default)
        case click.IntRange() | click.FloatRange():
            return str(int(option.type.min or 0) + 1)
        case _ if option.is_flag:
            return "false" if option.default is True else "true"
        case _ if isinstance(option, ListOption):
            return '["x"]'
        case _:
            return '"x"'


PARSED: dict[str, str] = {
    "store": '"sqlite:x"',
    "bind": '"[::1]:1"',
    "acme-http-bind": '"[::]:80"',
    "metrics-bind": '"127.0.0.1:9"',
    "key-store": '"sqlite"',
    "approval-store": '"memory"',
    "provider": '["p256=pyca"]',
    "trusted-proxy": '["192.0.2.0/24"]',
    "auth-jwt-jwks-url": '"https://a.example/k"',
    "vault-user": '"{me}"',
    "front-end-user": '"{me}"',
}
ALL = [
    pytest.param(title, option, setting, id=setting.flag)
    for title in GROUPS
    for option, setting in options_in(title)
]


@pytest.mark.parametrize(("title", "option", "setting"), ALL)
def test_every_setting_is_a_key(
    server: Program,
    title: str,
    option: click.Option,
    setting: Setting,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its value arrives as that of the flag does."""
    found: list[dict[str, Any]] = []
    note: Callable[..., None] = lambda **values: found.append(values)  # noqa: E731
    monkeypatch.setattr(program.serve, "callback", note)
    me = pwd.getpwuid(os.geteuid()).pw_name
    value = PARSED.get(setting.flag, _toml(option)).replace("{me}", me)
    sections = {"secrets": SECRETS, "listener": TLS}
    table = table_of(title)
    own = sections.pop(table, f"[{table}]\n")
    kept = [line for line in own.splitlines() if not line.startswith(setting.flag)]
    server.write(
        "\n".join([*kept, f"{setting.flag} = {value}", *sections.values()]) + "\n"
    )
    result = server.run()

    assert 0 == result.exit_code, result.output
    assert found[0][setting.name] not in (None, option.default)


@pytest.mark.parametrize("flag", UNAVAILABLE)
def test_what_is_not_there_is_no_key(server: Program, flag: str) -> None:
    """It has the reason of the flag."""
    assert UNAVAILABLE[flag] in server.refusal(f"[service]\n{flag} = 1\n")
