# SPDX-License-Identifier: MIT
"""Commands of tokens."""

import base64
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from joserfc import jwk, jwt

from hsm_cli.commands.token import inspect_token
from hsm_client.tokens import mint_token, secret_signer
from tests.cli.support import Shell

SECRET = "text:" + "s" * 32


def b64url(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def key_file(folder: Path, name: str) -> tuple[Path, str]:
    """Write a private key for an algorithm; return its file and the public key."""
    key: Any
    match name:
        case "rs256":
            key = rsa.generate_private_key(65537, 2048)
        case "es256":
            key = ec.generate_private_key(ec.SECP256R1())
        case _:
            key = ed25519.Ed25519PrivateKey.generate()
    path = folder / f"{name}.pem"
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    spki = PublicFormat.SubjectPublicKeyInfo
    return path, key.public_key().public_bytes(Encoding.PEM, spki).decode()


def imported(alg: str, public: str) -> Any:
    """Return the library's form of a public key."""
    kinds: dict[str, Any] = {"RS256": jwk.RSAKey, "ES256": jwk.ECKey}
    return kinds.get(alg, jwk.OKPKey).import_key(public)


def encrypted_key() -> bytes:
    """Return a private key that needs a passphrase."""
    key = ed25519.Ed25519PrivateKey.generate()
    how = BestAvailableEncryption(b"passphrase")
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)


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

    @pytest.mark.parametrize("name", ["rs256", "ES256", "EdDSA"])
    def test_mint_with_a_private_key(
        self, bare_shell: Shell, tmp_path: Path, name: str
    ) -> None:
        """The library verifies it with the public key; ``kid`` and ``iss`` are said."""
        pem, public = key_file(tmp_path, name.lower())
        line = ("--jwt-algorithm", name, "--jwt-private-key", str(pem))
        more = ("--jwt-kid", "k1", "--jwt-issuer", "https://i", "--actor", "ada")
        text = bare_shell.ok(*line, *more, "token", "mint").text.strip()
        alg = {"rs256": "RS256", "es256": "ES256", "eddsa": "EdDSA"}[name.lower()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # EdDSA, for its name
            token = jwt.decode(text, imported(alg, public), algorithms=[alg])

        assert {"alg": alg, "typ": "JWT", "kid": "k1"} == token.header
        assert ("ada", "https://i") == (token.claims["sub"], token.claims["iss"])

    @pytest.mark.parametrize("name", ["rs256", "es256", "eddsa"])
    def test_a_key_of_another_kind(
        self, bare_shell: Shell, tmp_path: Path, name: str
    ) -> None:
        """It is refused, and so are one open to others, an encrypted one and none."""
        for other in {"rs256", "es256", "eddsa"} - {name}:
            pem, _ = key_file(tmp_path, other)
            refused = ("--jwt-algorithm", name, "--jwt-private-key", str(pem))
            assert f"{name} requires a" in bare_shell(*refused, "token", "mint").err
        pem, _ = key_file(tmp_path, name)
        line = ("--jwt-algorithm", name, "--jwt-private-key", str(pem), "token", "mint")
        bare_shell.ok(*line)
        pem.chmod(0o644)
        assert "0644" in bare_shell(*line).err
        pem.chmod(0o600)
        pem.write_text("no key")
        assert "must be a PEM private key" in bare_shell(*line).err
        pem.write_bytes(encrypted_key())
        assert "encrypted private keys are not supported" in bare_shell(*line).err

    def test_a_secret_is_no_private_key(
        self, bare_shell: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where only the environment's secret is there, the other one is asked for."""
        monkeypatch.setenv("FERROHSM_JWT_SECRET", SECRET)
        outcome = bare_shell("--jwt-algorithm", "rs256", "token", "mint")

        assert "rs256 requires --jwt-private-key" in outcome.err

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
            ([], "No key to sign the token"),
            (["--jwt-secret", "text:short"], "at least 32 bytes"),
            (["--jwt-secret", "standard base64"], "must be standard base64"),
            (["--jwt-secret", SECRET, "--roles", "king"], "Unknown role"),
            (["--jwt-secret", SECRET, "--roles", ","], "at least one role"),
            (["--jwt-secret", SECRET, "--actor", ""], "actor must not be empty"),
            (["--jwt-secret", SECRET, "--actor", "a\nb"], "control character"),
            (["--jwt-secret", SECRET, "--actor", "a\x85b"], "control character"),
            (["--jwt-secret", SECRET, "--actor", "a" * 129], "at most 128"),
            (["--jwt-secret", SECRET, "--token-ttl", "99999999999"], "token_ttl"),
        ],
    )
    def test_refused(self, bare_shell: Shell, flags: list[str], word: str) -> None:
        """Invalid input of a token is an error without the secret."""
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
        assert "servers reject tokens" in longer.err
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
        assert "not verified" in file.text
        assert "do not trust these claims" in file.text
        assert ("ada", "not verified") == (
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

    @pytest.mark.parametrize("name", ["rs256", "es256", "eddsa"])
    def test_inspect_by_public_key(
        self, bare_shell: Shell, tmp_path: Path, name: str
    ) -> None:
        """PEM, JWK and JWK Set verify; a forgery, another key and another kid don't."""
        pem, public = key_file(tmp_path, name)
        line = ("--jwt-algorithm", name, "--jwt-private-key", str(pem), "--jwt-kid")
        token = bare_shell.ok(*line, "k1", "token", "mint").text.strip()
        _, other = key_file(tmp_path, "es256" if name != "es256" else "eddsa")
        alg = {"rs256": "RS256", "es256": "ES256", "eddsa": "EdDSA"}[name]
        row = imported(alg, public).as_dict(private=False)
        stray = {"kty": "oct", "k": "AAAA"}
        forms = {
            "pem": public,
            "jwk": json.dumps(row),
            "set": json.dumps({"keys": [stray, 7, {**row, "kid": "k1"}]}),
        }
        wrong = {
            "another": other,
            "another kid": json.dumps({"keys": [{**row, "kid": "k2"}]}),
        }
        file = tmp_path / "public"
        inspect = ("token", "inspect", "-", "--json", "--verify-key", str(file))
        for text in forms.values():
            file.write_text(text)
            shown = bare_shell.ok(*inspect, stdin=token.encode())
            assert "valid" == shown.json["signature"]
            assert {"alg": alg, "typ": "JWT", "kid": "k1"} == shown.json["header"]
            assert "" == shown.err
            forged = f"{token[:-8]}{'A' * 8}"
            assert 3 == bare_shell(*inspect, stdin=forged.encode()).code
        for text in wrong.values():
            file.write_text(text)
            refused = bare_shell(*inspect, stdin=token.encode())
            assert (3, b"") == (refused.code, refused.out)

    def test_a_public_key_is_no_secret(self, bare_shell: Shell, tmp_path: Path) -> None:
        """A token of HS256 with the public key as its secret is not signed by it."""
        _, public = key_file(tmp_path, "rs256")
        file = tmp_path / "public.pem"
        file.write_text(public)
        token = mint_token(
            secret_signer(public.encode()), actor="a", roles=["admin"], ttl_seconds=9
        )
        line = ("token", "inspect", "-", "--verify-key", str(file))

        assert 3 == bare_shell(*line, stdin=token.encode()).code

    @pytest.mark.parametrize(
        "text",
        ["", "x", "{", "[]", "{}", '{"keys": 1}', '{"keys": [{"kty": "oct"}]}'],
    )
    def test_inspect_by_no_key(
        self, bare_shell: Shell, tmp_path: Path, text: str
    ) -> None:
        """A file without a key, or a missing one, is an error."""
        token = mint_token(
            secret_signer(b"s" * 32), actor="a", roles=["admin"], ttl_seconds=9
        )
        file = tmp_path / "public"
        line = ("token", "inspect", "-", "--verify-key", str(file))
        assert "Can't read the key" in bare_shell(*line, stdin=token.encode()).err
        file.write_text(text)
        outcome = bare_shell(*line, stdin=token.encode())

        assert (2, b"") == (outcome.code, outcome.out)
        assert "The file" in outcome.err

    def test_inspect_by_two_keys(self, bare_shell: Shell) -> None:
        """Two verification keys are mutually exclusive."""
        line = ("--jwt-secret", SECRET, "token", "inspect", "-", "--verify-key", "f")

        assert "mutually exclusive" in bare_shell(*line, stdin=b"a.b.c").err

    @pytest.mark.parametrize("alg", ["none", "PS512", "ML-DSA-65", "HS999"])
    def test_inspect_any_algorithm(self, bare_shell: Shell, alg: str) -> None:
        """Header and claims are shown as not verified."""
        parts = ({"alg": alg, "x5u": "https://e"}, {"sub": "eve", "exp": 1})
        segments = [b64url(json.dumps(part).encode()) for part in parts]
        shown = bare_shell.ok(
            "token", "inspect", "-", stdin=f"{'.'.join(segments)}.".encode()
        )

        for word in (alg, "https://e", "eve", "not verified"):
            assert word in shown.text

    @pytest.mark.parametrize("token", ["", "a.b", "a.b.c", "e30.W10.x", "é.é.é"])
    def test_inspect_no_token(self, bare_shell: Shell, token: str) -> None:
        """An invalid token is an error."""
        outcome = bare_shell("token", "inspect", "-", stdin=token.encode())

        assert 2 == outcome.code
        assert "The token is not a JWT" in outcome.err

    def test_inspect_nothing(self, bare_shell: Shell) -> None:
        """A token is required."""
        outcome = bare_shell("token", "inspect")

        assert 2 == outcome.code
        assert "Pass TOKEN or --auth-token" in outcome.err
