# SPDX-License-Identifier: MIT
"""``audit follow``: the live view of the audit log on the command line."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest
from msgspec import structs

from hsm_core import wire
from hsm_core.model import AuditEntry
from tests.cli.support import Shell
from tests.client.streams import DENIED, block, streamed
from tests.client.stub import Stub, stream


@pytest.fixture
def connected(
    bare_shell: Shell, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Shell:
    """Give hsm-cli that reaches the stub."""
    for name, value in environment.items():
        if name.startswith("FERROHSM_"):
            monkeypatch.setenv(name, value)
    return bare_shell


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(environment: dict[str, str]) -> Start:
    """Give a function that starts ``audit follow`` as a process."""

    def begin(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "hsm_cli", "audit", "follow", *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


class TestCommand:
    def test_lines(
        self, connected: Shell, stub: Stub, entries: Sequence[AuditEntry]
    ) -> None:
        """Each event is a line; an interruption is told beside them."""
        stub.faults = [streamed(*entries[:2], whole=False), DENIED]
        outcome = connected("audit", "follow", "--key-id", "k", "--start-seq", "0")
        first = outcome.lines[0].split("  ")

        assert (3, 2) == (outcome.code, len(outcome.lines))
        assert "0" == first[0]
        assert entries[0].event.kind == first[2]
        assert "reconnecting" in outcome.err
        assert stub.received[0].target.endswith("?start_seq=0&key_id=k")

    def test_node(
        self, connected: Shell, stub: Stub, entries: Sequence[AuditEntry]
    ) -> None:
        """Lines of a cluster begin with the node."""
        entry = structs.replace(entries[0], log_id="0" * 32, node="a")
        stub.faults = [streamed(entry), DENIED]
        outcome = connected("audit", "follow")

        assert ["a", "0"] == outcome.lines[0].split("  ")[:2]

    def test_json(
        self, connected: Shell, stub: Stub, entries: Sequence[AuditEntry]
    ) -> None:
        """With --json each line is an entry as the list has it."""
        stub.faults = [streamed(*entries), DENIED]
        outcome = connected("audit", "follow", "--json")
        found = [
            wire.decode_json(line, AuditEntry) for line in outcome.out.split(b"\n")[:-1]
        ]

        assert list(entries) == found

    def test_interrupted(
        self, start: Start, stub: Stub, entries: Sequence[AuditEntry]
    ) -> None:
        """Ctrl-C ends it at once, with the status of every interrupted command."""
        stub.faults = [stream([block(entries[0])], then_wait=True)]
        with start("--json") as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)

        assert 0 == json.loads(line)["event"]["seq"]
        assert (130, "hsm-cli: interrupted\n") == (process.returncode, err)

    def test_reader_who_left(
        self, start: Start, stub: Stub, entries: Sequence[AuditEntry]
    ) -> None:
        """A closed pipe ends it at the next event, without a word."""
        stub.faults = [streamed(*entries)] + [streamed(*entries)] * 20
        with start() as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            code = process.wait(30)
            err = process.stderr.read()

        assert 141 == code
        assert "Traceback" not in err
