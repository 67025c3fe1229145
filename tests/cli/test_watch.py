# SPDX-License-Identifier: MIT
"""The command `watch`, and times that are given as an age."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from hsm_core.errors import AccessDeniedError, UnavailableError
from hsm_core.operations import ListApprovals, ListAuditEvents, Operation, Status
from tests.cli.support import Answering, Shell

SOON = ("watch", "--interval", "0.5")


class TestWatch:
    def test_line(self, shell: Shell) -> None:
        """A pipe gets a line for each change, and none without one."""
        shell.ok("create", "aes")
        lines = shell.ok(*SOON, "--updates", "2").lines

        assert 1 == len(lines)
        assert "operational; 1 key; audit log ok, " in lines[0]
        assert "0 approval requests open" in lines[0]

    def test_terminal(self, shell: Shell) -> None:
        """A terminal is cleared and drawn; approval requests are listed."""
        shell.ok("create", "aes", "--name", "k", "--tags", "dual")
        shell("destroy", "k", "--yes")
        outcome = shell("--no-color", "watch", "--updates", "1", terminal=True)

        assert outcome.text.startswith("\x1b[H\x1b[2J")
        assert "1 approval request open" in outcome.text
        assert "DestroyKey" in outcome.text

    def test_changes(self, shell: Shell) -> None:
        """A change is a new record; an unavailable HSM is waited for."""
        inner = shell.hsm
        assert inner is not None
        looks = 0

        def answer(asked: Operation[Any]) -> Any:
            nonlocal looks
            if isinstance(asked, Status):
                looks += 1
                if looks == 2:
                    raise UnavailableError("Not now.")
                if looks == 3:
                    Shell.ok(other, "create", "aes")
            return inner.execute(asked)

        other = Shell.__new__(Shell)
        other.hsm = inner
        shell.hsm = Answering(answer)
        outcome = shell(*SOON, "--updates", "3", "--json")
        records = [json.loads(line) for line in outcome.lines]

        assert [0, 1] == [record["keys"] for record in records]
        assert [[], []] == [record["approvals"] for record in records]
        assert "Not now." in outcome.err

    def test_without_the_right(self, shell: Shell) -> None:
        """Who may not list approval requests sees the rest."""
        inner = shell.hsm
        assert inner is not None

        def answer(asked: Operation[Any]) -> Any:
            if isinstance(asked, ListApprovals):
                raise AccessDeniedError
            return inner.execute(asked)

        shell.hsm = Answering(answer)
        text = shell.ok("watch", "--updates", "1").text

        assert "operational" in text
        assert "approval" not in text


def test_ages(shell: Shell) -> None:
    """A time may be given as the time that has passed since."""
    inner = shell.hsm
    assert inner is not None
    shell.hsm = answering = Answering(inner.execute)
    begun = datetime.now(UTC)
    for age in ("7d", "2w", "12h", "30m", "90s"):
        shell.ok("audit", "events", "--since", age, "--until", "1s")
    refused = [
        shell("audit", "events", "--since", age).code for age in ("7", "d", "1y")
    ]
    ages = [
        begun - asked.since
        for asked in answering.seen
        if isinstance(asked, ListAuditEvents) and asked.since is not None
    ]

    assert [2, 2, 2] == refused
    expected = [
        timedelta(days=7),
        timedelta(days=14),
        timedelta(hours=12),
        timedelta(minutes=30),
        timedelta(seconds=90),
    ]
    assert all(
        timedelta(0) <= want - found < timedelta(minutes=5)
        for want, found in zip(expected, ages, strict=True)
    )
