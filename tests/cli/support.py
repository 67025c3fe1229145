# SPDX-License-Identifier: MIT
"""Run hsm-cli in the test's process, with its own streams."""

import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest

from hsm_cli.client import RemoteHSM
from hsm_cli.main import run
from hsm_core.protocols import HSM

Remote: TypeAlias = Callable[..., RemoteHSM]
"""Makes clients of the stub, with other arguments where they are given."""


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


class Shell:
    """
    Run command lines of hsm-cli.

    Args:
        monkeypatch: Replaces the streams, and forgets the caller's FERROHSM variables.

        hsm: What executes operations; None means the server of the settings.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hsm: HSM | None) -> None:
        self._monkeypatch = monkeypatch
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
        """
        Run one command and return how it ended.

        Args:
            args: Its words.

            stdin: What it finds on standard input.

            terminal: Whether it writes to a terminal.

            typing: Whether somebody types on standard input.
        """
        out, err = _Stream(terminal=terminal), _Stream(terminal=terminal)
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", _Stream(stdin, terminal=typing))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            code = run(args, hsm=self.hsm)
            out.flush()
            err.flush()
        return Outcome(code, out.memory.getvalue(), err.memory.getvalue().decode())

    def ok(self, *args: str, stdin: bytes = b"") -> Outcome:
        """Run a command that must succeed without output on standard error."""
        outcome = self(*args, stdin=stdin)
        assert (0, "") == (outcome.code, outcome.err)
        return outcome
