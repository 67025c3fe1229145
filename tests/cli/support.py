# SPDX-License-Identifier: MIT
"""Run hsm-cli in the test's process, with its own streams."""

import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from unittest import mock

import pytest

from hsm_cli.main import run
from hsm_core.operations import Operation
from hsm_core.protocols import HSM

R = TypeVar("R")


class _Stream(io.TextIOWrapper):
    """A text stream over memory that may say it is a terminal."""

    def __init__(self, data: bytes = b"", *, terminal: bool = False) -> None:
        self.memory = io.BytesIO(data)
        super().__init__(self.memory, encoding="utf-8", errors="backslashreplace")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a command."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode()

    @property
    def json(self) -> Any:
        """Standard output as one JSON value."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """Lines of standard output."""
        return self.text.splitlines()


class Answering:
    """
    HSM that keeps every operation, and whose answers a function gives.

    Args:
        answer: Returns a result, or raises.
    """

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.answer = answer
        self.seen: list[Operation[Any]] = []

    def execute(
        self,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None = None,
        approval_id: str = "",
        expected_generation: int = 0,
    ) -> R:
        """Answer an operation."""
        self.seen.append(operation)
        found: R = self.answer(operation)
        return found


def run_here(
    *args: str,
    hsm: HSM | None = None,
    stdin: bytes = b"",
    terminal: bool = False,
    typing: bool = False,
) -> Outcome:
    """
    Run one command in this process and return how it ended.

    Args:
        args: Its words.

        hsm: What executes operations; None means the server of the settings.

        stdin: What it finds on standard input.

        terminal: Whether it writes to a terminal.

        typing: Whether somebody types on standard input.
    """
    out, err = _Stream(terminal=terminal), _Stream(terminal=terminal)
    with (
        mock.patch.object(sys, "stdin", _Stream(stdin, terminal=typing)),
        mock.patch.object(sys, "stdout", out),
        mock.patch.object(sys, "stderr", err),
    ):
        code = run(args, hsm=hsm)
        out.flush()
        err.flush()
    return Outcome(code, out.memory.getvalue(), err.memory.getvalue().decode())


class Shell:
    """
    Run command lines of hsm-cli.

    Args:
        monkeypatch: Forgets the caller's FERROHSM variables.

        hsm: What executes operations; None means the server of the settings.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hsm: HSM | None) -> None:
        self.hsm = hsm
        for name in list(os.environ):
            if name.startswith(("FERROHSM_", "NO_COLOR", "_HSM_CLI")):
                monkeypatch.delenv(name)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "200")

    def __call__(
        self,
        *args: str,
        stdin: bytes = b"",
        terminal: bool = False,
        typing: bool = False,
    ) -> Outcome:
        """Run one command; see `run_here`."""
        return run_here(
            *args, hsm=self.hsm, stdin=stdin, terminal=terminal, typing=typing
        )

    def ok(self, *args: str, stdin: bytes = b"") -> Outcome:
        """Run a command that must succeed without output on standard error."""
        outcome = self(*args, stdin=stdin)
        assert (0, "") == (outcome.code, outcome.err)
        return outcome
