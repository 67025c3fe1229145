# SPDX-License-Identifier: MIT
"""The command line: every flag has its variable, and none is ignored."""

import errno
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from hsm_core.errors import (
    AuditTamperedError,
    HSMError,
    KeyRingTamperedError,
    StoreLockedError,
    StoreUnavailableError,
    WrongAuditKeyError,
    WrongMasterKeyError,
)
from hsm_core.settings import Settings
from hsm_server.commands import serve as program
from hsm_server.config.annotations import Setting
from hsm_server.config.exit_codes import ListenError
from hsm_server.config.options import (
    GROUPS,
    UNAVAILABLE,
    environment_name,
    options,
    secret_flags,
)
from hsm_server.config.settings import (
    ConsoleSettings,
    HTTPLimits,
    LaunchSettings,
    ProxySettings,
    RateLimits,
    Secrets,
    ServerSettings,
    TokenConfig,
    TokenRules,
)
from hsm_server.config.tls import ACMESettings, ClientSettings, PairFiles, TLSSettings
from hsm_server.main import main
from hsm_server.starting import Start
from hsm_server.system.standard_streams import announce
from tests.server.support import b64

KEY = b64(bytes(range(32)))
NEEDED = {
    "FERROHSM_CERT": "cert.pem",
    "FERROHSM_KEY": "key.pem",
    "FERROHSM_MASTER_KEY": KEY,
    "FERROHSM_HMAC_KEY": b64(b"\1" * 32),
    "FERROHSM_JWT_SECRET": "text:a secret of thirty-two bytes or more",
}


class Server:
    """Stands in for the listener: keeps what it was started with."""

    def __init__(self) -> None:
        self.settings = ServerSettings()
        self.secrets = Secrets(b"", b"", b"")
        self.environment: dict[str, str] = {}
        self.error: Exception | None = None

    def __call__(self, start: Start) -> None:
        """Be started."""
        self.settings, self.secrets = start.settings, start.box.secrets()
        self.environment = dict(os.environ)
        self.start = start
        if self.error is not None:
            raise self.error
        announce("https://127.0.0.1:1")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """Give a listener that only listens to us."""
    # Root would be warned.
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    started = Server()
    monkeypatch.setattr(program, "start", started)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("os.umask", lambda _: 0)
    return started


def run(*arguments: str, **changes: str | None) -> Result:
    """Run the command with what it needs, changed; None unsets a variable."""
    environment: dict[str, str | None] = {**NEEDED, **changes}
    runner = CliRunner(env=environment)
    return runner.invoke(main, arguments, prog_name="hsm-server")


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ([], "data"),
        (["--key-dir", "/srv/hsm/keys"], "/srv/hsm"),
        (["--key-store", "filesystem:/srv/hsm/keys"], "/srv/hsm"),
        (["--key-store", "sqlite", "--sqlite-path", "/srv/hsm/k.db"], "/srv/hsm"),
        (["--key-store", "sqlite:/srv/hsm/k.db"], "/srv/hsm"),
        (["--key-store", "s3://bucket/prefix"], "data"),
    ],
)
def test_everything_lies_beside_the_keys(
    server: Server, given: list[str], folder: str
) -> None:
    """Whoever says where keys are kept has trail and approvals in that folder too."""
    acme = ("--tls-mode", "acme", "--acme-domain", "hsm.example.com")
    files = {"FERROHSM_CERT": None, "FERROHSM_KEY": None}
    result = run(*given, *acme, "--retention-config", "retention.yaml", **files)
    settings = server.settings

    assert 0 == result.exit_code, result.output
    assert settings.tls is not None
    assert settings.tls.acme is not None
    assert {Path(folder)} == {
        path.parent
        for path in (
            settings.core.audit_log,
            settings.core.audit_sqlite_path,
            settings.core.approval_dir,
            settings.core.approval_sqlite_path,
            settings.core.retention_ledger,
            settings.tls.acme.cache,
        )
        if path is not None
    }


ACME_OF_THE_ORIGINAL = """
hsm-server \\
  --tls-mode acme \\
  --acme-domain hsm.example.com \\
  --acme-contact ops@example.com \\
  --acme-cache-dir data/acme \\
  --acme-use-production \\
  --client-ca certs/ca.pem \\
  --key-dir data/keys \\
  --audit-log data/audit.log \\
  --master-key "$FERROHSM_MASTER_KEY" \\
  --hmac-key "$FERROHSM_HMAC_KEY" \\
  --auth-jwt-config config/jwt.yaml \\
  --retention-config config/retention.yaml \\
  --retention-ledger data/retention-ledger.log
"""


@pytest.mark.parametrize("command", ["", "serve"])
def test_the_line_of_the_original_with_acme(server: Server, command: str) -> None:
    """Word for word, as the others in tests/e2e; with or without the command's name."""
    text = ACME_OF_THE_ORIGINAL.replace("$FERROHSM_MASTER_KEY", KEY)
    text = text.replace("$FERROHSM_HMAC_KEY", NEEDED["FERROHSM_HMAC_KEY"])
    _, *words = shlex.split(text.replace("\\\n", " "))
    changes = dict.fromkeys(NEEDED)
    result = run(*filter(None, [command]), *words, **changes)
    tls = server.settings.tls

    assert 0 == result.exit_code, result.output
    assert tls is not None
    assert tls.acme is not None
    assert tls.client is not None
    assert (("hsm.example.com",), True) == (tls.acme.names, tls.acme.is_production)
    assert Path("config/jwt.yaml") == server.settings.token_config.path
    assert Path("data/retention-ledger.log") == server.settings.core.retention_ledger


def test_secrets_are_decoded_and_leave_the_environment(server: Server) -> None:
    """What runs later, and what it starts, finds no secret."""
    assert 0 == run().exit_code

    assert bytes(range(32)) == server.secrets.master_key
    assert b"\1" * 32 == server.secrets.hmac_key
    assert b"a secret of thirty-two bytes or more" == server.secrets.jwt_secret
    assert not {environment_name(f) for f in secret_flags()} & server.environment.keys()


def test_a_secret_on_the_command_line_works_and_warns(server: Server) -> None:
    """The warning does not repeat it."""
    result = run("--master-key", KEY, FERROHSM_MASTER_KEY=None)

    assert 0 == result.exit_code
    assert bytes(range(32)) == server.secrets.master_key
    assert (
        "warning: other users can read --master-key on the command line"
        in result.stderr
    )
    assert KEY not in result.output


@pytest.mark.parametrize(
    ("uid", "flags", "words"),
    [
        (0, (), "Pass --vault-user and --front-end-user to"),
        (0, ("--vault-user", "daemon"), "Pass --front-end-user to"),
        (0, ("--vault-user", "daemon", "--front-end-user", "root"), "--front-end-user"),
        (0, ("--vault-user", "daemon", "--front-end-user", "nobody"), ""),
        (0, ("--isolation", "inline"), "Start it as another user"),
        (1000, (), ""),
    ],
)
def test_root_is_warned(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    uid: int,
    flags: tuple[str, ...],
    words: str,
) -> None:
    """Who lets what talks to the network be root is told the flags that mend it."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    result = run(*flags)

    assert 0 == result.exit_code
    assert words in result.stderr
    assert bool(words) == ("as root" in result.stderr)


def test_a_secret_in_a_file_does_not_warn(server: Server, tmp_path: Path) -> None:
    """Naming a file gives nothing away."""
    path = tmp_path / "master"
    path.write_text(f"{KEY}\n")
    path.chmod(0o600)
    result = run("--master-key", f"@{path}", FERROHSM_MASTER_KEY=None)

    assert (0, "") == (result.exit_code, result.stderr)
    assert bytes(range(32)) == server.secrets.master_key


@pytest.mark.parametrize("flag", secret_flags())
@pytest.mark.parametrize(
    "value", ["S3CRET", "text:S3CRET", "S3CRET-" * 20, "", "@S3CRET", "fd:S3CRET"]
)
def test_a_bad_secret_ends_the_start_and_is_not_told(
    server: Server, flag: str, value: str
) -> None:
    """One message that names the flag, exit code 2."""
    result = run(**{environment_name(flag): value})

    assert 2 == result.exit_code
    assert flag in result.stderr
    assert "S3CRET" not in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_needed_is_asked_for(server: Server, name: str) -> None:
    """A missing option is named with its variable."""
    result = run(**{name: None})

    assert 2 == result.exit_code
    assert "Missing option" in result.stderr
    assert name in result.stderr


def test_a_usage_error_does_not_control_the_terminal(tmp_path: Path) -> None:
    """Unexpected arguments are shown with their control characters escaped."""
    result = CliRunner().invoke(
        main, ["init", str(tmp_path / "hsm"), "\x1b[31mred\a"], color=True
    )

    assert 2 == result.exit_code
    assert r"Got unexpected extra argument (\x1b[31mred\x07)" in result.stderr


@pytest.mark.parametrize("flag", UNAVAILABLE)
def test_a_flag_that_is_not_there_is_refused(server: Server, flag: str) -> None:
    """On the command line and as a variable: never ignored."""
    as_flag = run(f"--{flag}", "1")
    as_variable = run(**{environment_name(flag): "1"})

    for result in (as_flag, as_variable):
        assert 2 == result.exit_code
        assert f"--{flag}" in result.stderr
        assert "not available in this version: " in result.stderr


@pytest.mark.parametrize("bind", ["", "8443", ":8443", "::1:8443", "a:b", "a:65536"])
def test_another_address_is_refused(server: Server, bind: str) -> None:
    """Nothing is guessed."""
    result = run("--bind", bind)

    assert 2 == result.exit_code
    assert "HOST:PORT" in result.stderr


def test_a_memory_store_keeps_its_trail_in_memory(server: Server) -> None:
    """Unless a file is named."""
    assert 0 == run("--key-store", "memory").exit_code
    assert server.settings.core.audit_log is None
    assert 0 == run("--key-store", "memory", "--audit-log", "x.log").exit_code
    assert Path("x.log") == server.settings.core.audit_log


PLACES: dict[type, Callable[[Start], Any]] = {
    ServerSettings: lambda start: start.settings,
    Settings: lambda start: start.settings.core,
    TLSSettings: lambda start: start.settings.tls,
    ACMESettings: lambda start: start.settings.tls and start.settings.tls.acme,
    ClientSettings: lambda start: start.settings.tls and start.settings.tls.client,
    TokenConfig: lambda start: start.settings.token_config,
    TokenRules: lambda start: start.settings.tokens,
    ConsoleSettings: lambda start: start.settings.console,
    HTTPLimits: lambda start: start.settings.limits,
    RateLimits: lambda start: start.settings.rates,
    ProxySettings: lambda start: start.settings.proxies,
    LaunchSettings: lambda start: start.launch,
}
"""Where what a flag says is found; secrets, metrics and traces have their own tests."""

ACME = ("--tls-mode=acme", "--acme-domain=hsm.example.com")
SAMPLES: dict[str, tuple[str, Any]] = {
    "bind": ("[::1]:1", ("::1", 1)),
    "store": ("sqlite:x", "sqlite:x"),
    "key-store": ("sqlite", "sqlite"),
    "approval-store": ("memory", "memory"),
    "provider": ("p256 = pyca", {"p256": ("pyca",)}),
    "trusted-proxy": ("192.0.2.0/24", ("192.0.2.0/24",)),
    "auth-jwt-jwks-url": ("https://a.example/k", "https://a.example/k"),
    "acme-domain": ("a.example", ("hsm.example.com", "a.example")),
    "acme-contact": ("a@b.example", ("mailto:a@b.example",)),
    "acme-directory-url": ("https://ca.example/", "https://ca.example/"),
    "acme-http-bind": ("[::]:80", ("::", 80)),
    "session-idle-secs": ("60", 60),
}
"""Values whose form is their own, with what is made of them."""

APART = {
    "auth-jwt-jwks-ca",
    "oidc-config",
    "token-issuers",
    "vault-user",
    "front-end-user",
}
"""Flags that need another flag, a file, or root."""


def _sample(option: click.Option, setting: Setting) -> tuple[list[str], Any]:
    """Return words of a command line that are not the default, and their value."""
    flag = f"--{setting.flag}"
    if setting.flag in SAMPLES:
        text, value = SAMPLES[setting.flag]
        return [f"{flag}={text}"], value
    match option.type:
        case click.Choice(choices=choices):
            text = next(str(one) for one in choices if one != option.default)
            return [f"{flag}={text}"], setting.texts.get(text, text)
        case click.IntRange() | click.FloatRange():
            known = (option.default, option.type.min)
            number = 1 + next(
                (int(one) for one in known if isinstance(one, int | float)), 0
            )
            return [f"{flag}={number}"], number
        case click.Path():
            path = Path("other.file")
            return [f"{flag}={path}"], (path,) if option.multiple else path
        case _ if option.is_flag:
            return [flag], True
        case _:
            return [f"{flag}=text"], "text"


FLAGS = [
    pytest.param(group, field, setting, id=setting.flag)
    for groups in GROUPS.values()
    for group, settings in groups
    for field, setting in settings.items()
    if group in PLACES and setting.flag not in APART
]


@pytest.mark.parametrize(("group", "field", "setting"), FLAGS)
def test_every_flag_reaches_its_field(
    server: Server, group: type, field: str, setting: Setting
) -> None:
    """No declared flag is without effect."""
    (option,) = (
        p for p in options() if isinstance(p, click.Option) and p.name == setting.name
    )
    words, value = _sample(option, setting)
    changes: dict[str, str | None] = {}
    if group is ACMESettings:
        words = [*ACME, *words]
        changes = {"FERROHSM_CERT": None, "FERROHSM_KEY": None}
    elif group is ClientSettings and field != "ca":
        words.append("--client-ca=ca.pem")
    elif setting.flag == "cert-ca-key":
        words.append("--key=cert.pem")
    result = run(*words, **changes)

    assert 0 == result.exit_code, result.output
    assert value == getattr(PLACES[group](server.start), field)


def test_some_flags_reach_the_core_too(server: Server) -> None:
    """It takes the longest payload of all, and people by certificate."""
    result = run(
        *("--max-payload-bytes=7", "--max-raw-bytes=8", "--max-aad-bytes=9"),
        *("--client-ca=ca.pem", "--client-cert-identities"),
    )
    core = server.settings.core

    assert 0 == result.exit_code, result.output
    assert (8, 9) == (core.limits.payload_bytes, core.limits.aad_bytes)
    assert core.certificate_identities


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://issuer.example/keys", "https:// URL"),
        ("file:///etc/passwd", "https:// URL"),
        ("https:///keys", "https:// URL"),
        ("https://user@issuer.example/keys", "user information or a fragment"),
        ("https://issuer.example/keys#a", "user information or a fragment"),
        ("https://issuer.example:70000/keys", "not a valid URL"),
        ("https://[/keys", "not a valid URL"),
        ("https://xn--/keys", "not a valid URL"),
        ("https://issuer.example/a b", "characters that are not allowed in a URL"),
        ("https://issuer.example/" + "a" * 2048, "https:// URL"),
    ],
    ids=[
        *("plain", "file", "no host", "user", "fragment", "port", "bracket"),
        *("label", "space", "long"),
    ],
)
def test_where_keys_are_not_fetched(server: Server, url: str, words: str) -> None:
    """What a stranger on the way could change is no place for keys."""
    result = run("--auth-jwt-jwks-url", url)

    assert 2 == result.exit_code
    assert words in " ".join(result.stderr.split())


def test_where_keys_are_fetched(server: Server) -> None:
    """It stands in the place of a secret; authorities are its own."""
    url = "https://issuer.example:8443/keys?tenant=1"
    flags = ("--auth-jwt-jwks-url", url, "--auth-jwt-jwks-ca", "ca.pem")
    result = run(*flags, FERROHSM_JWT_SECRET=None)
    found = server.settings.token_config

    assert 0 == result.exit_code, result.output
    assert (url, Path("ca.pem")) == (found.key_set_url, found.key_set_authorities)
    assert server.secrets.jwt_secret is None
    assert "because --auth-jwt-jwks-url sets" in run(*flags).stderr
    assert "requires --auth-jwt-jwks-url" in run(*flags[2:]).stderr


def test_certificates_alone_need_no_keys_of_tokens(server: Server) -> None:
    """It is said; without certificates, or with an empty secret, it does not start."""
    flags = ("--client-cert-identities", "--client-ca", "ca.pem")
    result = run(*flags, FERROHSM_JWT_SECRET=None)
    found = server.settings.token_config

    assert 0 == result.exit_code, result.output
    assert found.has_no_keys
    assert server.secrets.jwt_secret is None
    assert "every bearer token is rejected" in result.stderr
    assert 2 == run(*flags[1:], FERROHSM_JWT_SECRET=None).exit_code
    assert 2 == run(*flags, "--auth-jwt-secret", "").exit_code
    assert "every bearer token" not in run(*flags).stderr
    assert not server.settings.token_config.has_no_keys


class TestTLS:
    """What the listener shows, and whom it lets in."""

    def test_one_pair_is_the_least(self, server: Server) -> None:
        """Nobody is asked for a certificate, and files are looked at every hour."""
        result = run()

        assert 0 == result.exit_code
        assert not server.settings.core.certificate_identities
        assert (
            TLSSettings(
                pairs=(PairFiles(cert=Path("cert.pem"), key=Path("key.pem")),),
                client=None,
                reload_interval_seconds=3600,
                ocsp_responses=(),
                ocsp_refresh_interval_seconds=14400,
            )
            == server.settings.tls
        )

    def test_variables_hold_several(self, server: Server) -> None:
        """With colons between; pairs belong together by their order."""
        result = run(FERROHSM_CERT="a.pem:b.pem", FERROHSM_KEY="1.pem:2.pem")
        tls = server.settings.tls

        assert 0 == result.exit_code, result.output
        assert tls is not None
        assert [Path("a.pem"), Path("b.pem")] == [pair.cert for pair in tls.pairs]
        assert [Path("1.pem"), Path("2.pem")] == [pair.key for pair in tls.pairs]

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (["--cert", "a.pem", "--cert", "b.pem"], "given 2 times and --key 1"),
            (["--client-auth", "optional"], "--client-auth optional requires"),
            (["--client-crl", "x.crl"], "--client-crl requires --client-ca"),
            (
                ["--client-cert-identities"],
                "--client-cert-identities requires --client-ca",
            ),
            (["--client-ocsp", "hard"], "--client-ocsp hard requires --client-ca"),
            (["--client-ca", "ca.pem", "--client-ocsp", "on"], "'on' is not one of"),
            (["--ocsp-refresh-interval-secs", "-1"], "--ocsp-refresh-interval-secs"),
            (
                ["--session-idle-secs", "600", "--session-absolute-secs", "599"],
                "--session-idle-secs must not exceed",
            ),
            (["--metrics-bind", "192.0.2.1:9100"], "must be a loopback address"),
        ],
        ids=[
            *("unpaired", "auth", "crl", "identities", "ocsp", "ocsp kind"),
            *("ocsp interval", "session", "metrics"),
        ],
    )
    def test_what_does_not_fit_together(
        self, server: Server, flags: list[str], words: str
    ) -> None:
        """Nothing that was asked for is passed over."""
        result = run(*flags)

        assert 2 == result.exit_code
        assert words in result.stderr


@pytest.mark.parametrize("flag", ["key-store", "approval-store"])
@pytest.mark.parametrize("value", ["", "sqlit", "S3://bucket", "s3:", ":x"])
def test_a_store_of_no_form_is_refused(server: Server, flag: str, value: str) -> None:
    """The message names the flag and what it may be."""
    result = run(f"--{flag}", value)

    assert 2 == result.exit_code
    assert f"--{flag}" in result.stderr
    assert "SCHEME:REST" in result.stderr


@pytest.mark.parametrize(
    ("uri", "flag", "path"),
    [
        ("sqlite:a.db", "--sqlite-path", "b.db"),
        ("filesystem:a", "--key-dir", "data/keys"),
    ],
)
def test_a_place_that_is_said_twice_is_refused(
    server: Server, uri: str, flag: str, path: str
) -> None:
    """Neither a flag nor its variable is ignored because a URI says another place."""
    variable = environment_name(flag.removeprefix("--"))
    results = [
        run("--key-store", uri, flag, path),
        run("--key-store", uri, **{variable: path}),
    ]

    for result in results:
        assert 2 == result.exit_code
        assert flag in result.stderr
        assert variable in result.stderr
    assert 0 == run("--key-store", uri).exit_code
    other = {"--key-dir": "--sqlite-path", "--sqlite-path": "--key-dir"}[flag]
    assert 0 == run("--key-store", uri, other, path).exit_code


def test_why_a_store_is_not_available(server: Server) -> None:
    """What the system said of a store stands in the message of a failed start."""
    reason = PermissionError(errno.EACCES, "a word", "/a/path")
    server.error = StoreUnavailableError()
    server.error.__cause__ = RuntimeError()
    server.error.__cause__.__cause__ = reason

    result = run()

    said = os.strerror(errno.EACCES)
    assert 1 == result.exit_code
    assert result.stderr.endswith(
        f"The store of keys or approvals is not available. ({said})\n"
    )
    assert "a word" not in result.stderr


@pytest.mark.parametrize(
    "flag",
    [
        "audit-retention-days",
        "audit-retention-interval-secs",
        "approval-retention-days",
        "approval-retention-interval-secs",
        "scrub-interval-secs",
        "audit-reserve-bytes",
        "destroy-waiting-days",
        "destroy-interval-secs",
        "rotation-interval-secs",
    ],
)
@pytest.mark.parametrize("value", ["-1", "1" + 19 * "0", "1" + 400 * "0"])
def test_a_number_that_makes_no_sense_is_refused(
    server: Server, flag: str, value: str
) -> None:
    """No span of time or space is so long that a clock or a disk can't have it."""
    result = run(f"--{flag}", value)

    assert 2 == result.exit_code
    assert f"--{flag}" in result.stderr


class TestProviders:
    def test_variables(self, server: Server) -> None:
        """One variable holds several orders; a flag goes before a variable."""
        orders = "ML-DSA-65=libcrypto,pyca Ed25519=pyca"
        result = run(
            "--no-enable-oqs", FERROHSM_PROVIDERS=orders, FERROHSM_ENABLE_OQS="1"
        )

        assert 0 == result.exit_code, result.output
        assert {"ML-DSA-65": ("libcrypto", "pyca"), "Ed25519": ("pyca",)} == (
            server.settings.core.providers
        )
        assert not server.settings.core.enable_oqs
        assert 0 == run(FERROHSM_ENABLE_OQS="1").exit_code
        assert server.settings.core.enable_oqs

    @pytest.mark.parametrize(
        ("orders", "words"),
        [
            (["ML-KEM-768"], "must be ALGORITHM=NAME"),
            (["=pyca"], "must be ALGORITHM=NAME"),
            (["ML-KEM-768=pyca,"], "must be ALGORITHM=NAME"),
            (["Ed25519=pyca", "Ed25519=libcrypto"], "lists Ed25519 twice"),
        ],
    )
    def test_refused(self, orders: list[str], words: str) -> None:
        """What is no order, or says two things, is a wrong command line."""
        result = run(*(f"--provider={order}" for order in orders))

        assert 2 == result.exit_code
        assert words in result.stderr


def test_every_option_names_its_variable_in_the_help() -> None:
    """The help is the list of variables."""
    text = run("serve", "--help").stdout
    shown = [p for p in program.serve.params if not getattr(p, "hidden", False)]

    for parameter in shown:
        if isinstance(parameter, click.Option) and parameter.envvar:
            assert str(parameter.envvar) in "".join(text.split())
    for flag in UNAVAILABLE:
        assert f"--{flag}" in "".join(text.split())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (HSMError("Something."), 1),
        (WrongMasterKeyError(), 4),
        (WrongAuditKeyError(), 5),
        (AuditTamperedError("Damaged.", seq=7, reason="mac"), 6),
        (StoreLockedError("Locked."), 7),
        (KeyRingTamperedError(), 8),
        (ListenError("Taken."), 9),
        (RuntimeError("S3CRET"), 1),
    ],
)
def test_a_failed_start_has_one_message_and_its_code(
    server: Server, error: Exception, code: int
) -> None:
    """No traceback, and nothing of an unexpected error's text."""
    server.error = error
    result = run()

    assert code == result.exit_code
    assert result.stderr.startswith("hsm-server: error: ")
    assert 1 == result.stderr.count("\n")
    assert "S3CRET" not in result.output


def test_a_damaged_trail_is_named(server: Server) -> None:
    """Which record, and what is wrong with it."""
    server.error = AuditTamperedError("The trail is damaged.", seq=7, reason="mac")

    assert "(seq 7, reason mac)" in run().stderr
