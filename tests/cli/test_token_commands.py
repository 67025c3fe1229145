# SPDX-License-Identifier: MIT
"""Tests of the commands on tokens."""

from pathlib import Path

import pytest
from joserfc import jwk, jwt

from hsm_cli.tokens import inspect_token
from tests.cli.support import Shell

SECRET = "text:" + "s" * 32


class TestToken:
    def test_mint(self, bare_shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
        """A minted token says who, what, when and until when, and is signed."""
        monkeypatch.setenv("FERROHSM_JWT_SECRET", SECRET)
        line = ("--actor", "ada", "--roles", "operator, admin", "--token-ttl", "60")
        outcome = bare_shell.ok(*line, "--jwt-issuer", "me", "token", "mint")
        key = jwk.OctKey.import_key(b"s" * 32)
        token = jwt.decode(outcome.text.strip(), key, algorithms=["HS256"])
        claims = token.claims

        assert {"alg": "HS256", "typ": "JWT"} == token.header
        assert {"sub", "roles", "iat", "exp", "jti", "iss"} == claims.keys()
        assert ("ada", "me", 60) == (
            claims["sub"],
            claims["iss"],
            claims["exp"] - claims["iat"],
        )
        assert ["Administrator", "Operator"] == claims["roles"]

    def test_mint_as_json(
        self, bare_shell: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As JSON the token is the member *token*."""
        monkeypatch.setenv("FERROHSM_JWT_SECRET", SECRET)
        outcome = bare_shell.ok("token", "mint", "--json")

        assert 2 == outcome.json["token"].count(".")

    @pytest.mark.parametrize(
        ("flags", "word"),
        [
            ([], "needs a secret"),
            (["--jwt-secret", "text:short"], "at least 32 bytes"),
            (["--jwt-secret", "not base64"], "must be standard base64"),
            (["--jwt-secret", SECRET, "--roles", "king"], "not known"),
            (["--jwt-secret", SECRET, "--roles", ","], "at least one role"),
            (["--jwt-secret", SECRET, "--actor", ""], "needs an actor"),
            (["--jwt-secret", SECRET, "--actor", "a\nb"], "control character"),
            (["--jwt-secret", SECRET, "--actor", "a\x85b"], "control character"),
            (["--jwt-secret", SECRET, "--actor", "a" * 129], "at most 128"),
            (["--jwt-secret", SECRET, "--token-ttl", "99999999999"], "token_ttl"),
        ],
    )
    def test_refused(self, bare_shell: Shell, flags: list[str], word: str) -> None:
        """What makes no token is told, without the secret."""
        outcome = bare_shell(*flags, "token", "mint")

        assert (2, b"") == (outcome.code, outcome.out)
        assert word in outcome.err
        assert "s" * 32 not in outcome.err
        assert "text:short" not in outcome.err

    def test_longest_actor(
        self, bare_shell: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An actor may have 128 characters, of any script."""
        monkeypatch.setenv("FERROHSM_JWT_SECRET", SECRET)
        token = bare_shell.ok("--actor", "é" * 128, "token", "mint").text.strip()

        assert "é" * 128 == inspect_token(token).claims["sub"]

    def test_long_life(
        self, bare_shell: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A token that servers refuse by default is minted with a warning."""
        monkeypatch.setenv("FERROHSM_JWT_SECRET", SECRET)
        day = bare_shell.ok("--token-ttl", "86400", "token", "mint")
        longer = bare_shell("--token-ttl", "86401", "token", "mint")
        monkeypatch.delenv("FERROHSM_JWT_SECRET")
        monkeypatch.setenv("FERROHSM_AUTH_TOKEN", "a.b.c")
        monkeypatch.setenv("FERROHSM_TOKEN_TTL", "86401")

        assert 2 == day.text.count(".")
        assert (0, 2) == (longer.code, longer.text.count("."))
        assert "warning: servers refuse tokens" in longer.err
        bare_shell.ok("algorithms", "--offline")

    def test_inspect(
        self, bare_shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """A token is shown from a file, standard input, flag or argument."""
        monkeypatch.setenv("FERROHSM_JWT_SECRET", SECRET)
        token = bare_shell.ok("--actor", "ada", "token", "mint").text.strip()
        monkeypatch.delenv("FERROHSM_JWT_SECRET")
        path = tmp_path / "token"
        path.write_text(f"{token}\n")
        path.chmod(0o600)
        file = bare_shell.ok("token", "inspect", f"@{path}")
        stdin = bare_shell.ok("token", "inspect", "-", stdin=token.encode())
        flag = bare_shell.ok("--auth-token", f"@{path}", "token", "inspect", "--json")
        argument = bare_shell("token", "inspect", token)

        assert file.text.replace(" ", "") == stdin.text.replace(" ", "")
        assert "unchecked" in file.text
        assert ("ada", "unchecked") == (
            flag.json["claims"]["sub"],
            flag.json["signature"],
        )
        assert "warning: other users can see TOKEN" in argument.err
        assert token not in argument.err

    def test_inspect_checks_signature(
        self, bare_shell: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With the secret at hand the signature is checked."""
        monkeypatch.setenv("FERROHSM_JWT_SECRET", SECRET)
        token = bare_shell.ok("token", "mint").text.strip()
        head, body, _ = token.split(".")
        forged = f"{head}.{body}.{'A' * 43}"
        good = bare_shell.ok("token", "inspect", "-", "--json", stdin=token.encode())
        bad = bare_shell("token", "inspect", "-", stdin=forged.encode())

        assert "valid" == good.json["signature"]
        assert (3, b"") == (bad.code, bad.out)

    @pytest.mark.parametrize("token", ["", "a.b", "a.b.c", "e30.W10.x", "é.é.é"])
    def test_inspect_no_token(self, bare_shell: Shell, token: str) -> None:
        """What is no token is told so."""
        outcome = bare_shell("token", "inspect", "-", stdin=token.encode())

        assert 2 == outcome.code
        assert "The token is not a JWT" in outcome.err

    def test_inspect_nothing(self, bare_shell: Shell) -> None:
        """There must be a token to inspect."""
        outcome = bare_shell("token", "inspect")

        assert 2 == outcome.code
        assert "Give TOKEN, or --auth-token" in outcome.err
