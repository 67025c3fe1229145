# SPDX-License-Identifier: MIT
"""Tests of the commands on health, algorithms and completion."""

import shutil
import subprocess
import threading
from typing import Any

import cryptography
import pytest
from msgspec import structs

from hsm_core.algorithms import ALGORITHMS, Algorithm
from hsm_core.operations import (
    ListAlgorithms,
    Operation,
    SelfTest,
    SelfTestReport,
    SelfTestResult,
)
from hsm_core.protocols import HSM
from tests.cli.support import Answering, Shell
from tests.client.certificates import Certificates
from tests.client.stub import TOKEN, Stub
from tests.support import require_program


def self_tested(*, passed: bool, reason: str = "") -> SelfTestReport:
    """Return the report of a self-test of one algorithm."""
    result = SelfTestResult(
        algorithm=Algorithm.ED25519, provider="p", passed=passed, reason=reason
    )
    return SelfTestReport(passed=passed, results=(result,))


class TestHealth:
    def test_status(self, shell: Shell) -> None:
        """Status shows keys, trail and algorithms."""
        shell.ok("create", "aes")
        text = shell.ok("status").text
        record = shell.ok("status", "--json").json

        assert "operational" in text
        assert "Ed448" not in text
        assert "Ed448" in shell.ok("status", "--format", "wide").text
        assert ("operational", 1) == (record["state"], record["keys"])
        assert len(ALGORITHMS) == len(record["algorithms"])
        words = text.split()
        assert ["pyca", cryptography.__version__] == words[
            words.index("provider") + 1 : words.index("provider") + 3
        ]

    def test_whoami(self, shell: Shell) -> None:
        """The caller's principal and roles are shown."""
        record = shell.ok("whoami", "--json").json

        assert "principal  tester" in shell.ok("whoami").text
        assert ["Administrator", "Operator"] == record["roles"]

    def test_self_test(self, shell: Shell) -> None:
        """Self-tests that pass are listed, with exit code 0."""
        report = self_tested(passed=True)
        shell.hsm = Answering({SelfTest(): report}.__getitem__)
        outcome = shell.ok("selftest")

        assert ["Ed25519", "p", "passed", "-"] == outcome.lines[1].split()

    def test_failing_self_test(self, shell: Shell) -> None:
        """A failing self-test is shown, named and gives exit code 8."""
        report = self_tested(passed=False, reason="sign")
        shell.hsm = Answering({SelfTest(): report}.__getitem__)
        outcome = shell("selftest")

        assert 8 == outcome.code
        assert ["Ed25519", "p", "FAILED", "sign"] == outcome.lines[1].split()
        assert "Self-tests failed: Ed25519. [self_test_failed]" in outcome.err


def test_self_test_may_take_long(
    bare_shell: Shell,
    stub: Stub,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The self-test is waited for longer than other answers are."""
    is_over = threading.Event()

    def slow(operation: object) -> SelfTestReport:
        """Answer every operation as if it were the self-test, after a while."""
        is_over.wait(1.3 if isinstance(operation, SelfTest) else 60)
        return self_tested(passed=True)

    stub.hsm = Answering(slow)
    monkeypatch.setenv("FERROHSM_ENDPOINT", stub.endpoint)
    monkeypatch.setenv("FERROHSM_CA_BUNDLE", str(certificates.ca))
    monkeypatch.setenv("FERROHSM_AUTH_TOKEN", TOKEN)
    # Time enough to connect, also on a busy machine.
    monkeypatch.setenv("FERROHSM_TIMEOUT", "1.1")

    tested, told = bare_shell("selftest"), bare_shell("status")
    is_over.set()
    assert 0 == tested.code
    assert "passed" in tested.text
    assert "1.1 seconds" in told.err


def poor(hsm: HSM) -> Answering:
    """Return an HSM of which one algorithm is not installed, and one is stopped."""

    def answer(operation: Operation[Any]) -> Any:
        found = hsm.execute(operation)
        field = "items" if isinstance(operation, ListAlgorithms) else "algorithms"
        rows = tuple(map(_poor, getattr(found, field)))
        return structs.replace(found, **{field: rows})

    return Answering(answer)


def _poor(row: Any) -> Any:
    if row.algorithm is Algorithm.ML_KEM_512:
        return structs.replace(
            row,
            status="unavailable",
            provider="",
            provider_version="",
            hint="Install X.",
        )
    if row.algorithm is Algorithm.ED25519:
        return structs.replace(row, status="stopped")
    return row


class TestAlgorithms:
    def test_table(self, shell: Shell) -> None:
        """Each algorithm has a row with its sizes and who serves it."""
        found = shell.ok("algorithms", "--format", "wide").lines[:-2]
        lines = {line.split()[0]: line for line in found}

        assert {"ALGORITHM", *ALGORITHMS} == set(lines)
        assert all(
            word in lines["ML-KEM-768"].split()
            for word in ("3", "1184", "64", "1088", "available")
        )
        assert "encapsulate,decapsulate" in lines["ML-KEM-768"]
        assert "pyca" in lines["EC-P256"].split()
        assert cryptography.__version__ in lines["EC-P256"].split()

    def test_json(self, shell: Shell) -> None:
        """For programs it is the answer of the server."""
        items = shell.ok("algorithms", "--json").json["items"]

        assert [row.value for row in ALGORITHMS] == [i["algorithm"] for i in items]
        assert {"draft", "family", "provider_version"} <= set(items[-1])

    def test_narrow_terminal(
        self, shell: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where a wide table has no room, each algorithm is told line by line."""
        monkeypatch.setenv("COLUMNS", "80")
        lines, offline = (
            shell("algorithms", "--format", "wide", *words, terminal=True).lines
            for words in ([], ["--offline"])
        )

        for told in (lines, offline):
            names = [line.split()[1] for line in told if line.startswith("algorithm ")]
            assert list(ALGORITHMS) == names
        assert len(ALGORITHMS) == sum(line.startswith("status ") for line in lines)
        assert "ciphertext  1088" in lines

    def test_what_to_install(self, shell: Shell) -> None:
        """What is not available says what to install; it can be left out."""
        assert shell.hsm is not None
        shell.hsm = poor(shell.hsm)
        lines = shell.ok("algorithms").lines
        available = shell.ok("algorithms", "--available").text

        assert ["unavailable: Install X."] == [
            line[line.index("unavailable") :]
            for line in lines
            if line.startswith("ML-KEM-512")
        ]
        assert "ML-KEM-512" not in available
        assert "stopped" not in available
        assert "ML-KEM-768 " in available
        assert "unavailable: Install X." in shell.ok("status").text

    def test_family(self, shell: Shell) -> None:
        """A family can be asked for, of a server or without one."""
        for more in ([], ["--offline"]):
            items = shell.ok("algorithms", "--family", "ml-dsa", "--json", *more).json

            assert ["ML-DSA-44", "ML-DSA-65", "ML-DSA-87"] == [
                item["algorithm"] for item in items["items"]
            ]

    def test_offline(self, bare_shell: Shell) -> None:
        """The table that the program knows is shown without a server."""
        text = bare_shell.ok("algorithms", "--offline").text
        items = bare_shell.ok("algorithms", "--offline", "--json").json["items"]

        assert [row.value for row in ALGORITHMS] == [i["algorithm"] for i in items]
        assert "secp256r1" in text

    def test_offline_knows_no_availability(self, bare_shell: Shell) -> None:
        """What is available can't be asked without a server."""
        outcome = bare_shell("algorithms", "--offline", "--available")

        assert 2 == outcome.code
        assert "are mutually exclusive" in outcome.err


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

        assert ["rotate", "rollback", "rotation"] == done.stdout.split()


def python_module() -> str:
    """Return the words that start hsm-cli with this interpreter."""
    import sys

    return f'"{sys.executable}" -m hsm_cli'
