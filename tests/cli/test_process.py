# SPDX-License-Identifier: MIT
"""The program as a process: start, streams, signals, environments."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.stub import TOKEN, Stub
from tests.support import require_program

PROGRAM = (sys.executable, "-m", "hsm_cli")
HEAVY = (
    "cryptography",
    "joserfc",
    "msgspec",
    "rich",
    "ssl",
    "http.client",
    "hsm_core.model",
)


OF_OTHER_COMMANDS = (
    "hsm_core.algorithms.table",
    "hsm_core.model.trail",
    "hsm_core.operations.approvals",
    "hsm_core.operations.signing",
    "hsm_core.settings",
)


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Give the endpoint of a server that accepts and then says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"


def loaded(
    *args: str,
    known: tuple[str, ...] = HEAVY,
    environment: dict[str, str] | None = None,
) -> set[str]:
    """Return which of the *known* modules a command line loads."""
    probe = (
        "import json, sys\n"
        "from hsm_cli.main import run\n"
        f"code = run({list(args)!r})\n"
        "sys.stdout = sys.stderr\n"
        f"print(json.dumps([code, [m for m in {known!r} if m in sys.modules]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    code, modules = json.loads(done.stderr)
    assert 0 == code
    return set(modules)


class TestStart:
    @pytest.mark.parametrize("args", [[], ["--help"], ["--version"]])
    def test_help_loads_nothing_heavy(self, args: list[str]) -> None:
        """The help starts without cryptography, HTTP, tables or the core's model."""
        assert set() == loaded(*args)

    def test_command_loads_what_it_needs(self) -> None:
        """A table for a pipe needs neither HTTP nor tables nor cryptography."""
        assert {"msgspec", "hsm_core.model"} == loaded("algorithms", "--offline")

    def test_list_loads_only_its_subject(self, environment: dict[str, str]) -> None:
        """A list of keys does without the operations of other subjects."""
        known = ("hsm_core.operations.keys", *OF_OTHER_COMMANDS)

        assert {"hsm_core.operations.keys"} == loaded(
            "list", known=known, environment=environment
        )

    def test_version(self) -> None:
        """The version is printed."""
        done = subprocess.run(
            [*PROGRAM, "--version"], check=False, capture_output=True, text=True
        )

        assert "hsm-cli, version 0.1.0\n" == done.stdout

    @pytest.mark.parametrize(
        "variables",
        [
            {},
            {"LANG": "C"},
            {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
            {"PYTHONIOENCODING": "ascii"},
            {"HOME": "/nonexistent"},
            {"HOME": "/proc", "TERM": ""},
        ],
        ids=str,
    )
    def test_poor_environments(
        self, environment: dict[str, str], variables: dict[str, str]
    ) -> None:
        """The program runs without HOME and in a locale without Unicode."""
        text = "grüße \N{SNOWMAN}"
        line = [*PROGRAM, "create", "aes", "--description", text]
        done = subprocess.run(
            line, check=False, capture_output=True, env=environment | variables
        )

        assert (0, b"") == (done.returncode, done.stderr)
        assert b"description" in done.stdout

    def test_no_unicode_at_all(self, environment: dict[str, str]) -> None:
        """Where output can't hold a character, it is shown as an escape."""
        line = [*PROGRAM, "create", "aes", "--name", "k", "--description", "ü"]
        subprocess.run(line, check=True, capture_output=True, env=environment)
        poor = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        done = subprocess.run(
            [*PROGRAM, "describe", "k"],
            check=False,
            capture_output=True,
            env=environment | poor,
        )

        assert (0, b"") == (done.returncode, done.stderr)
        assert b"description  \\xfc\n" in done.stdout


class TestStreams:
    def test_reader_that_leaves(self, environment: dict[str, str]) -> None:
        """A reader that closes the pipe ends the program silently."""
        done = subprocess.run(
            [
                "sh",
                "-c",
                '"$@" | exec true; exit 0',
                "sh",
                *PROGRAM,
                "algorithms",
                "--offline",
            ],
            check=False,
            capture_output=True,
            env=environment,
        )

        assert (0, b"", b"") == (done.returncode, done.stdout, done.stderr)

    @pytest.mark.parametrize(
        "args", [["algorithms", "--offline"], ["--help"], ["random", "200000"]]
    )
    def test_closed_pipe(self, environment: dict[str, str], args: list[str]) -> None:
        """A pipe without reader gives the exit code of a broken pipe, and no noise."""
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [*PROGRAM, *args],
            check=False,
            stdout=writing,
            stderr=subprocess.PIPE,
            env=environment,
        )
        os.close(writing)

        assert (141, b"") == (done.returncode, done.stderr)

    def test_full_disk(self, environment: dict[str, str]) -> None:
        """Output that can't be written is an error."""
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [*PROGRAM, "algorithms", "--offline"],
                check=False,
                stdout=full,
                stderr=subprocess.PIPE,
                env=environment,
            )

        assert 1 == done.returncode
        assert b"No space left on device. [output]" in done.stderr

    @pytest.mark.parametrize("args", ["--version", "sign --help"])
    @pytest.mark.parametrize(
        ("output", "words"),
        [(">/dev/full", b"No space left on device."), (">&-", b"output is closed.")],
    )
    def test_help_and_version_that_can_not_be_written(
        self, environment: dict[str, str], args: str, output: str, words: bytes
    ) -> None:
        """They are results like any other."""
        done = subprocess.run(
            ["sh", "-c", f'"$@" {args} {output}', "sh", *PROGRAM],
            check=False,
            capture_output=True,
            env=environment,
        )

        assert 1 == done.returncode
        assert words + b" [output]" in done.stderr

    @pytest.mark.parametrize(
        ("closed", "code"),
        [("0<&-", 0), ("2>&-", 0), ("1>&-", 1), ("0<&- 1>&- 2>&-", 1)],
    )
    def test_closed_descriptors(
        self, environment: dict[str, str], stub: Stub, closed: str, code: int
    ) -> None:
        """Closed standard streams cause no crash; a lost result is an error."""
        done = subprocess.run(
            ["sh", "-c", f'"$@" {closed}', "sh", *PROGRAM, "status"],
            check=False,
            capture_output=True,
            env=environment,
        )

        assert code == done.returncode
        assert b"Traceback" not in done.stderr
        assert ("GET", b"") == (stub.received[-1].method, stub.received[-1].body)

    def test_stdin_that_is_closed(self, environment: dict[str, str]) -> None:
        """Data from a standard input that is closed is an error of the input."""
        line = ["sh", "-c", '"$@" 0<&-', "sh", *PROGRAM, "sign", "k", "--in", "-"]
        done = subprocess.run(line, check=False, capture_output=True, env=environment)

        assert 2 == done.returncode
        assert b"Standard input is closed." in done.stderr


class TestSignals:
    def test_interrupt(self, environment: dict[str, str], silent_server: str) -> None:
        """Ctrl-C while waiting for the server ends the program in one line."""
        process = subprocess.Popen(
            [*PROGRAM, "--endpoint", silent_server, "--timeout", "60", "list"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        self.wait_for_socket(process.pid)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

        assert (130, b"", b"hsm-cli: interrupted\n") == (process.returncode, out, err)

    @staticmethod
    def wait_for_socket(pid: int) -> None:
        """Wait until a process has an open socket, that is, until it connects."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            targets = []
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                try:
                    targets.append(os.readlink(entry))
                except OSError:
                    continue
            if any(target.startswith("socket:") for target in targets):
                time.sleep(0.2)
                return
            time.sleep(0.05)
        raise AssertionError("it never connected")


class TestSecrecy:
    def test_no_secret_in_system_calls(
        self, environment: dict[str, str], tmp_path: Path
    ) -> None:
        """No file, argument or output of the program ever holds the token."""
        strace = require_program("strace")
        log = tmp_path / "strace"
        path = tmp_path / "token"
        path.write_text(TOKEN)
        path.chmod(0o600)
        environment["FERROHSM_AUTH_TOKEN"] = f"@{path}"
        done = subprocess.run(
            [
                *(strace, "-f", "-s", "4096", "-e", "trace=execve,write,sendto"),
                *("-o", str(log), *PROGRAM, "status"),
            ],
            check=False,
            capture_output=True,
            env=environment,
        )
        trace = log.read_text(errors="replace")

        assert 0 == done.returncode
        assert "execve" in trace
        assert TOKEN not in trace
        assert TOKEN.encode() not in done.stdout + done.stderr
