# SPDX-License-Identifier: MIT
"""Global flags, their environment variables, and credentials."""

import os
import socket
from pathlib import Path

import pytest

from hsm_cli.commands import cli
from hsm_cli.commands.token import inspect_token
from hsm_client.settings import TokenSettings
from hsm_client.tokens import mint_token, open_token, secret_signer
from hsm_core.errors import ConfigurationError
from tests.cli.support import Shell
from tests.client.stub import TOKEN, Stub

SECRET = "text:" + "q" * 40
FLAGS = (
    "--profile --endpoint --ca-bundle --client-cert --client-key --insecure --actor "
    "--roles --auth-token --token-ttl --jwt-secret --jwt-algorithm --jwt-private-key "
    "--jwt-issuer --jwt-kid --timeout --wait --wait-seconds --json "
    "--format --no-color"
).split()


@pytest.mark.parametrize("flag", FLAGS)
def test_every_flag_has_its_variable(bare_shell: Shell, flag: str) -> None:
    """Each global flag and its variable stand in the help."""
    text = bare_shell.ok("help", "all").text
    variable = "FERROHSM_" + flag[2:].replace("-", "_").upper()

    assert f"  {flag} " in text
    assert variable in "".join(text.split())


def test_no_other_flags() -> None:
    """There is no global flag beside the documented ones."""
    names = {name for param in cli.params for name in param.opts}

    assert {*FLAGS, "--version"} == names


class TestEnvironment:
    def test_token(
        self, online: Shell, stub: Stub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Endpoint, authorities and token of the environment are used."""
        monkeypatch.setenv("FERROHSM_AUTH_TOKEN", TOKEN)
        outcome = online.ok("status", "--json")

        assert "operational" == outcome.json["state"]
        assert f"Bearer {TOKEN}" == stub.received[0].headers["authorization"]

    def test_json(self, bare_shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
        """FERROHSM_JSON=1 asks for JSON, of errors too."""
        monkeypatch.setenv("FERROHSM_JSON", "1")

        assert "items" in bare_shell.ok("algorithms", "--offline").json
        assert bare_shell("describe").err.startswith('{"code":"invalid_input"')

    def test_client_certificate_files(
        self, online: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A key file that others may read is refused before anything is sent."""
        key = tmp_path / "key.pem"
        key.write_text("x")
        key.chmod(0o644)
        monkeypatch.setenv("FERROHSM_AUTH_TOKEN", TOKEN)
        monkeypatch.setenv("FERROHSM_CLIENT_CERT", str(key))
        outcome = online("status")

        assert 2 == outcome.code
        assert "[unsafe_file_mode]" in outcome.err


class TestCredentials:
    def sent(self, stub: Stub) -> str:
        """Return the token that was sent last."""
        return stub.received[-1].headers["authorization"].removeprefix("Bearer ")

    def test_none(self, online: Shell, stub: Stub) -> None:
        """Without a credential nothing is sent; the error says how to pass one."""
        outcome = online("status")

        assert (2, []) == (outcome.code, stub.received)
        assert "FERROHSM_AUTH_TOKEN" in outcome.err

    def test_rejected(
        self, online: Shell, stub: Stub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A rejected credential points to the login, an absent server to its URL."""
        monkeypatch.setenv("FERROHSM_AUTH_TOKEN", "other.token.x")
        rejected = online("status")
        absent = online("--endpoint", "https://127.0.0.1:1", "status")

        assert (3, 9) == (rejected.code, absent.code)
        assert "hsm-cli login" in rejected.err
        assert "Pass --endpoint URL or --profile NAME" in absent.err

    def test_both_flags(self, online: Shell, stub: Stub) -> None:
        """Two flags are mutually exclusive."""
        outcome = online("--auth-token", "@a", "--jwt-secret", "@b", "status")

        assert (2, []) == (outcome.code, stub.received)
        assert "mutually exclusive" in outcome.err

    def test_flag_before_environment(
        self, online: Shell, stub: Stub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A flag takes precedence over a variable; of two variables, the token."""
        monkeypatch.setenv("FERROHSM_AUTH_TOKEN", TOKEN)
        monkeypatch.setenv("FERROHSM_JWT_SECRET", SECRET)
        online("status")
        tokens = [self.sent(stub)]
        online("--jwt-secret", SECRET, "status")
        tokens.append(self.sent(stub))
        online("--auth-token", "other.token.x", "status")
        tokens.append(self.sent(stub))

        assert [TOKEN, "other.token.x"] == [tokens[0], tokens[2]]
        assert "cli-operator" == inspect_token(tokens[1]).claims["sub"]

    @pytest.mark.parametrize(
        "flags",
        [
            ["--actor", "ada"],
            ["--roles", "auditor"],
            ["--token-ttl", "60"],
            ["--jwt-issuer", "me"],
        ],
    )
    def test_token_with_flags_of_minted_ones(
        self,
        online: Shell,
        stub: Stub,
        monkeypatch: pytest.MonkeyPatch,
        flags: list[str],
    ) -> None:
        """Flags of minted tokens are refused with a given token."""
        by_flag = online("--auth-token", "@a", *flags, "status")
        monkeypatch.setenv("FERROHSM_JWT_SECRET", SECRET)
        monkeypatch.setenv("FERROHSM_AUTH_TOKEN", TOKEN)
        by_variable = online(*flags, "status")

        assert [] == stub.received
        for outcome in (by_flag, by_variable):
            assert (2, b"") == (outcome.code, outcome.out)
            assert f"{flags[0]} can't be used with" in outcome.err

    def test_token_with_variables_of_minted_ones(
        self, online: Shell, stub: Stub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Variables of minted tokens are ignored with a given token."""
        monkeypatch.setenv("FERROHSM_AUTH_TOKEN", TOKEN)
        monkeypatch.setenv("FERROHSM_ACTOR", "ada")
        monkeypatch.setenv("FERROHSM_ROLES", "auditor")
        monkeypatch.setenv("FERROHSM_TOKEN_TTL", "60")
        monkeypatch.setenv("FERROHSM_JWT_ISSUER", "me")
        online.ok("status")

        assert TOKEN == self.sent(stub)

    def test_flags_where_a_token_is_minted(
        self, online: Shell, stub: Stub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Flags of minted tokens apply if a token is minted."""
        monkeypatch.setenv("FERROHSM_AUTH_TOKEN", TOKEN)
        online("--jwt-secret", SECRET, "--actor", "ada", "status")
        monkeypatch.setenv("FERROHSM_JWT_SECRET", SECRET)
        minted = online.ok("--actor", "eve", "token", "mint").text.strip()

        assert ["ada", "eve"] == [
            inspect_token(token).claims["sub"] for token in (self.sent(stub), minted)
        ]

    def test_minted(
        self, online: Shell, stub: Stub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A minted token says what the flags say; its refusal has exit code 3."""
        monkeypatch.setenv("FERROHSM_JWT_SECRET", SECRET)
        outcome = online("--actor", "ada", "--roles", "auditor,service", "status")
        facts = inspect_token(self.sent(stub), secret=b"q" * 40)

        assert 3 == outcome.code
        assert ("ada", ["Auditor", "Service"]) == (
            facts.claims["sub"],
            facts.claims["roles"],
        )

    @pytest.mark.parametrize(
        "flags", [["--auth-token", TOKEN], ["--jwt-secret", SECRET]]
    )
    def test_literal(self, online: Shell, stub: Stub, flags: list[str]) -> None:
        """A secret on the command line works, and warns without repeating it."""
        outcome = online(*flags, "status")

        assert 1 == len(stub.received)
        assert f"warning: other users can see {flags[0]}" in outcome.err
        assert flags[1] not in outcome.err

    @pytest.mark.parametrize("flag", ["--auth-token", "--jwt-secret"])
    def test_file(self, online: Shell, stub: Stub, tmp_path: Path, flag: str) -> None:
        """A secret in a file of its owner's is read; one open to others is not."""
        path = tmp_path / "secret"
        path.write_text(f"{TOKEN if flag == '--auth-token' else SECRET}\n")
        path.chmod(0o600)
        outcome = online(flag, f"@{path}", "status")
        path.chmod(0o640)
        refused = online(flag, f"@{path}", "status")

        assert "warning" not in outcome.err
        assert 1 == len(stub.received)
        assert 2 == refused.code
        assert "[unsafe_file_mode]" in refused.err

    def test_descriptor(self, online: Shell, stub: Stub) -> None:
        """A secret can come through an open file descriptor."""
        ours, theirs = socket.socketpair()
        with ours:
            ours.sendall(TOKEN.encode())
            ours.shutdown(socket.SHUT_WR)
            outcome = online("--auth-token", f"fd:{theirs.detach()}", "status")

        assert (0, TOKEN) == (outcome.code, self.sent(stub))


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--jwt-algorithm", "rs512"], "'rs512' is not one of hs256, rs256"),
        (["--jwt-algorithm", "none"], "'none' is not one of hs256"),
        (["--jwt-algorithm", "rs256"], "--jwt-algorithm can't be used with"),
        (["--jwt-private-key", "k.pem"], "requires --jwt-algorithm"),
        (["--jwt-secret", SECRET, "--jwt-algorithm", "ES256"], "--jwt-algorithm es256"),
        (["--jwt-secret", SECRET, "--jwt-private-key", "k"], "mutually exclusive"),
        (["--auth-token", TOKEN, "--jwt-private-key", "k"], "mutually exclusive"),
        (["--auth-token", TOKEN, "--jwt-kid", "k"], "--jwt-kid can't be used with"),
        (["--token-ttl", "0"], "token-ttl"),
        (["--timeout", "0"], "timeout"),
        (["--timeout", "nan"], "timeout"),
        (["--endpoint", "http://localhost"], "endpoint must be https"),
        (["--endpoint", "https://x y"], "invalid host name"),
        (["--endpoint", "https://a..b"], "invalid host name"),
        (["--endpoint", f"https://{'a' * 64}.net"], "invalid host name"),
        (["--ca-bundle", "/nonexistent.pem"], "Can't read the CA bundle"),
    ],
)
def test_refused_flags(
    bare_shell: Shell, monkeypatch: pytest.MonkeyPatch, flags: list[str], word: str
) -> None:
    """A flag whose feature is not there, or that means nothing, is refused."""
    monkeypatch.setenv("FERROHSM_AUTH_TOKEN", TOKEN)
    outcome = bare_shell(*flags, "status")

    assert (2, b"") == (outcome.code, outcome.out)
    assert word in outcome.err


@pytest.mark.parametrize("name", ["hs256", "HS256"])
def test_accepted_algorithm(bare_shell: Shell, name: str) -> None:
    """HS256 may be written in any case."""
    assert 0 == bare_shell("--jwt-algorithm", name, "algorithms", "--offline").code


def test_insecure_warns(online: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking any certificate works, and warns each time."""
    monkeypatch.setenv("FERROHSM_AUTH_TOKEN", TOKEN)
    monkeypatch.delenv("FERROHSM_CA_BUNDLE")
    outcome = online("--insecure", "status")

    assert 0 == outcome.code
    assert "certificate verification is off" in outcome.err


def test_a_certificate_may_be_enough() -> None:
    """Where nothing else is named, no token is made up; one that is named is taken."""
    with pytest.raises(ConfigurationError):
        open_token(TokenSettings())

    assert "" == open_token(TokenSettings(), has_certificate=True)()
    named = TokenSettings(auth_token="t")
    assert "t" == open_token(named, has_certificate=True)()


class TestMinter:
    def test_reuse_and_renewal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A minted token serves until half a minute before it ends, then a new one."""
        now = [1000.0]
        monkeypatch.setattr("time.monotonic", lambda: now[0])
        token = open_token(TokenSettings(jwt_secret=SECRET, ttl_seconds=300))
        first = token()
        now[0] += 269
        same = token()
        now[0] += 2
        renewed = token()

        assert first == same
        assert first != renewed

    def test_tokens_differ(self) -> None:
        """Every token has its own id, and says nothing of the secret."""
        tokens = {
            mint_token(
                secret_signer(b"q" * 32),
                actor="a",
                roles=["admin"],
                ttl_seconds=5,
                now=7.5,
            )
            for _ in range(3)
        }
        facts = [inspect_token(token, now=8.0) for token in tokens]

        assert 3 == len({fact.claims["jti"] for fact in facts})
        assert {(7, 12, 4)} == {
            (f.claims["iat"], f.claims["exp"], f.expires_in_seconds) for f in facts
        }

    def test_text_that_is_not_unicode(self, bare_shell: Shell) -> None:
        """An actor that no JSON can hold is refused."""
        outcome = bare_shell(
            *("--jwt-secret", SECRET, "--actor", os.fsdecode(b"\xff"), "token", "mint")
        )

        assert (2, b"") == (outcome.code, outcome.out)
        assert "must be Unicode" in outcome.err

    def test_secrets_in_no_repr(self) -> None:
        """Settings do not show their secrets."""
        settings = TokenSettings(auth_token="tok-en", jwt_secret=SECRET)

        assert "tok-en" not in repr(settings)
        assert SECRET not in repr(settings)
