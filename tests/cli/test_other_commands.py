# SPDX-License-Identifier: MIT
"""Tests of the commands on trail, health, tokens and the program itself."""

import base64
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from joserfc import jwk, jwt

from hsm_core.algorithms import ALGORITHMS, Algorithm
from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.model import Role
from hsm_core.operations import (
    AuditVerification,
    Operation,
    SelfTest,
    SelfTestReport,
    SelfTestResult,
    VerifyAudit,
)
from hsm_core.protocols import HSM
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import caller
from tests.cli.support import Shell
from tests.support import require_program

R = TypeVar("R")
HMAC_KEY = base64.b64encode(b"\x02" * 32).decode()
SECRET = "text:" + "s" * 32


class _Bounded:
    """An HSM whose verification answers for three records a call."""

    def __init__(self, hsm: HSM) -> None:
        self.hsm = hsm
        self.calls: list[int] = []

    def execute(
        self, operation: Operation[R], /, *, idempotency_key: str | None = None
    ) -> R:
        """Execute it, with a lower bound."""
        if isinstance(operation, VerifyAudit):
            self.calls.append(operation.start_seq)
            bounded = VerifyAudit(start_seq=operation.start_seq, limit=3)
            found = self.hsm.execute(bounded)
            assert isinstance(found, AuditVerification)
            return found  # type: ignore[return-value]
        return self.hsm.execute(operation, idempotency_key=idempotency_key)


class _FailingSelfTest:
    """An HSM of which one algorithm fails its self-test."""

    def execute(
        self, operation: Operation[R], /, *, idempotency_key: str | None = None
    ) -> R:
        """Answer the self-test and nothing else."""
        assert isinstance(operation, SelfTest)
        result = SelfTestResult(
            algorithm=Algorithm.ED25519, provider="p", passed=False, reason="sign"
        )
        return SelfTestReport(passed=False, results=(result,))  # type: ignore[return-value]


class TestAuditEvents:
    def test_table(self, shell: Shell) -> None:
        """Events come newest first, with the head of the trail below."""
        shell.ok("create", "ed25519", "--name", "k")
        shell.ok("sign", "k", "x")
        outcome = shell.ok("audit", "events", "--limit", "2")
        kinds = [line.split()[2] for line in outcome.lines[1:3]]

        assert ["Sign", "CreateKey"] == kinds
        assert outcome.lines[-1].startswith("head: ")
        assert "go on with --start-seq " in outcome.lines[-1]

    def test_filters(self, shell: Shell) -> None:
        """Key, person, operation, order and start narrow the view."""
        uuid = shell.ok("create", "ed25519", "--json").json["key_id"]
        shell.ok("sign", uuid, "x")

        def seqs(*options: str) -> list[int]:
            page = shell.ok("audit", "events", "--json", *options).json
            return [item["event"]["seq"] for item in page["items"]]

        assert 1 == len(seqs("--kind", "Sign", "--key-id", uuid))
        assert [] == seqs("--principal", "nobody")
        assert [1, 2, 3] == seqs("--ascending", "--start-seq", "1", "--limit", "3")

    def test_auditor(self, gateway: OpenHSM, monkeypatch: pytest.MonkeyPatch) -> None:
        """An auditor reads the trail, and may not sign."""
        owner = Session(gateway.act_as(caller()))
        owner.create_key("ed25519", name="k")
        shell = Shell(monkeypatch, gateway.act_as(caller(Role.AUDITOR)))
        denied = shell("sign", "k", "x")

        assert 3 == denied.code
        assert "[access_denied]" in denied.err
        assert "access_denied" in shell.ok("audit", "events", "--limit", "1").text


class TestAuditVerify:
    @pytest.fixture
    def trail(self, tmp_path: Path) -> Iterator[Path]:
        """Give the live file of a trail that is in use, with a few records."""
        path = tmp_path / "audit.log"
        settings = Settings(key_dir=tmp_path / "keys", audit_log=path)
        with open_hsm(
            settings, master_key=b"\x01" * 32, hmac_key=b"\x02" * 32
        ) as gateway:
            session = Session(gateway.act_as(caller()))
            session.create_key("aes", name="box")
            session.encrypt("box", b"x")
            yield path

    def test_server(self, shell: Shell, gateway: OpenHSM) -> None:
        """The server's trail is verified range by range up to its head."""
        bounded = _Bounded(gateway.act_as(caller()))
        shell.hsm = bounded
        for name in ("a", "b", "c"):
            shell.ok("create", "aes", "--name", name)
        record = shell.ok("audit", "verify", "--json").json
        terminal = shell("audit", "verify", terminal=True)

        assert record["verified"] == record["head_seq"] + 1
        assert bounded.calls[:3] == [0, 3, 6]
        assert "records verified" in terminal.err
        assert terminal.err.endswith("\r\x1b[K")

    def test_files(self, bare_shell: Shell, trail: Path) -> None:
        """A trail in files, in use, is verified without a server."""
        line = ("audit", "verify", "--audit-path", str(trail))
        key = trail.parent / "hmac-key"
        key.write_text(f"{HMAC_KEY}\n")
        key.chmod(0o600)
        full = bare_shell.ok(*line, "--hmac-key", f"@{key}", "--json").json
        chain = bare_shell.ok(*line)

        assert (True, 4) == (full["macs_checked"], full["records"])
        assert full["records"] == full["head_seq"] + 1
        assert "the chain only" in chain.text

    def test_key_from_environment(
        self, bare_shell: Shell, trail: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The HMAC key may be in the environment, without a warning."""
        monkeypatch.setenv("FERROHSM_HMAC_KEY", HMAC_KEY)
        outcome = bare_shell.ok("audit", "verify", "--audit-path", str(trail))

        assert "every MAC and the chain" in outcome.text

    def test_key_on_the_command_line(self, bare_shell: Shell, trail: Path) -> None:
        """A key on the command line works, and warns without repeating it."""
        outcome = bare_shell(
            *("audit", "verify", "--audit-path", str(trail), "--hmac-key", HMAC_KEY)
        )

        assert 0 == outcome.code
        assert "warning: other users can see --hmac-key" in outcome.err
        assert HMAC_KEY not in outcome.err

    def test_one_changed_byte(self, bare_shell: Shell, trail: Path) -> None:
        """A changed byte is found, and its record is named with the reason."""
        lines = trail.read_bytes().splitlines(keepends=True)
        lines[2] = lines[2].replace(b"CreateKey", b"DeleteKey")
        copy = trail.with_name("copy.log")
        copy.write_bytes(b"".join(lines))
        outcome = bare_shell(
            *("audit", "verify", "--audit-path", str(copy), "--json"),
        )

        assert (7, b"") == (outcome.code, outcome.out)
        assert '"code":"audit_tampered"' in outcome.err
        assert '"seq":' in outcome.err
        assert '"reason":' in outcome.err

    @pytest.mark.parametrize(
        ("key", "code"),
        [
            (base64.b64encode(b"\x03" * 32).decode(), "wrong_audit_key"),
            (base64.b64encode(b"\x03" * 31).decode(), "configuration"),
            ("not base64", "configuration"),
            ("@/nonexistent", "configuration"),
        ],
    )
    def test_wrong_key(
        self, bare_shell: Shell, trail: Path, key: str, code: str
    ) -> None:
        """A key that is not the trail's is told apart from tampering."""
        line = ("audit", "verify", "--audit-path", str(trail), "--hmac-key", key)
        outcome = bare_shell(*line)

        assert 2 == outcome.code
        assert f"[{code}]" in outcome.err

    def test_no_trail(self, bare_shell: Shell, tmp_path: Path) -> None:
        """Where there is no trail, there is no verdict."""
        outcome = bare_shell("audit", "verify", "--audit-path", str(tmp_path / "none"))

        assert 2 == outcome.code
        assert "There is no audit trail." in outcome.err

    def test_key_without_path(self, shell: Shell) -> None:
        """A key is for files; the server has its own."""
        outcome = shell("audit", "verify", "--hmac-key", "@file")

        assert 2 == outcome.code
        assert "--hmac-key goes with --audit-path" in outcome.err


class TestHealth:
    def test_status(self, shell: Shell) -> None:
        """Status shows keys, trail and algorithms."""
        shell.ok("create", "aes")
        text = shell.ok("status").text
        record = shell.ok("status", "--json").json

        assert "operational" in text
        assert ("operational", 1) == (record["state"], record["keys"])
        assert len(ALGORITHMS) == len(record["algorithms"])

    def test_self_test(self, shell: Shell) -> None:
        """Self-tests that pass are listed, with exit code 0."""
        outcome = shell.ok("selftest")

        assert len(ALGORITHMS) + 1 == len(outcome.lines)
        assert all(line.split()[2] == "passed" for line in outcome.lines[1:])

    def test_failing_self_test(self, shell: Shell) -> None:
        """A failing self-test is shown, named and gives exit code 8."""
        shell.hsm = _FailingSelfTest()
        outcome = shell("selftest")

        assert 8 == outcome.code
        assert ["Ed25519", "p", "FAILED", "sign"] == outcome.lines[1].split()
        assert "Self-tests failed: Ed25519. [self_test_failed]" in outcome.err


def test_algorithms(bare_shell: Shell) -> None:
    """The table of algorithms is shown without a server."""
    text = bare_shell.ok("algorithms").text
    items = bare_shell.ok("algorithms", "--json").json["items"]

    assert [row.value for row in ALGORITHMS] == [item["algorithm"] for item in items]
    assert "secp256r1" in text


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


class TestCompletion:
    @pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
    def test_script(self, bare_shell: Shell, name: str) -> None:
        """There is a script for each shell."""
        outcome = bare_shell.ok("completion", name)

        assert "_HSM_CLI_COMPLETE" in outcome.text
        if shutil.which(name):
            done = subprocess.run([name, "-n"], input=outcome.out, check=False)
            assert 0 == done.returncode

    def test_bash_completes(
        self, bare_shell: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the script asks is answered with the commands that fit."""
        bash = require_program("bash")
        script = bare_shell.ok("completion", "bash").text
        probe = (
            f"{script}\n"
            "hsm-cli() { :; }\n"
            "COMP_WORDS=(hsm-cli ro); COMP_CWORD=1\n"
            f'env() {{ command env "$1" "$2" "$3" {python_module()}; }}\n'
            "_hsm_cli_completion hsm-cli\n"
            'printf "%s\\n" "${COMPREPLY[@]}"\n'
        )
        done = subprocess.run(
            [bash, "-c", probe], check=False, capture_output=True, text=True
        )

        assert ["rotate", "rollback"] == done.stdout.split()


def python_module() -> str:
    """Return the words that start hsm-cli with this interpreter."""
    import sys

    return f'"{sys.executable}" -m hsm_cli'
