# SPDX-License-Identifier: MIT
"""Tests of the commands on health, algorithms and completion."""

import shutil
import subprocess
from typing import TypeVar

import pytest

from hsm_core.algorithms import ALGORITHMS, Algorithm
from hsm_core.operations import (
    Operation,
    SelfTest,
    SelfTestReport,
    SelfTestResult,
)
from tests.cli.support import Shell
from tests.support import require_program

R = TypeVar("R")


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
