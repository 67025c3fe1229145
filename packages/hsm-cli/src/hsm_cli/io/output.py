# SPDX-License-Identifier: MIT
"""Standard output: JSON for programs, tables and text for people."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hsm_cli.io.terminal import neutral, neutral_json, render_pairs, render_table
from hsm_core.errors import HSMError


class OutputError(HSMError):
    """A result could not be written."""

    code: ClassVar[str] = "output"


def encode_record(value: object) -> str:
    """Return a record as one line of JSON without active terminal characters."""
    from hsm_core import wire

    return neutral_json(wire.encode_json(value).decode())


def print_note(message: str) -> None:
    """Print one line on standard error."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(f"hsm-cli: {neutral(message)}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return


def wants_colour() -> bool:
    """Whether the environment allows colored output."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


@dataclass(slots=True, kw_only=True)
class Output:
    """
    Standard output in the requested format.

    Attributes:
        json: Whether results are written as JSON, one line each.
        colour: Whether output to a terminal may be colored.
    """

    json: bool = False
    colour: bool = True

    @property
    def is_terminal(self) -> bool:
        """Whether standard output is a terminal."""
        return sys.stdout is not None and sys.stdout.isatty()

    def line(self, text: str) -> None:
        """Write one line of escaped text."""
        if sys.stdout is None:
            raise OutputError("Can't write the result: standard output is closed.")
        try:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
        except OSError as error:
            raise _failure(error) from None

    def record(self, value: object, text: str) -> None:
        """Write a record as JSON, or *text*, escaped."""
        self.line(encode_record(value) if self.json else neutral(text))

    def pairs(self, value: object, pairs: Sequence[tuple[str, str]]) -> None:
        """Write a record as JSON, or as names with values; empty ones are omitted."""
        shown = [(name, text) for name, text in pairs if text]
        self.line(encode_record(value) if self.json else render_pairs(shown))

    def table(
        self,
        value: object,
        header: Sequence[str],
        rows: Sequence[Sequence[str]],
        footer: str = "",
        *,
        least_columns: int = 0,
    ) -> None:
        """
        Write a record as JSON, or as a table with a footer.

        Args:
            value: The record.

            header: Names of the columns.

            rows: Cells; every row is as long as the header.

            footer: Line below the table, or nothing.

            least_columns: On a narrower terminal, each row is written as names with
                values.
        """
        if self.json:
            self.line(encode_record(value))
            return
        if self.is_terminal and _columns() < least_columns:
            blocks = (zip(header, row, strict=True) for row in rows)
            shown = ([(n.lower(), text) for n, text in b if text] for b in blocks)
            self.line("\n\n".join(map(render_pairs, shown)))
            return
        text = render_table(header, rows, terminal=self.is_terminal, colour=self.colour)
        self.line(f"{text}\n\n{neutral(footer)}" if footer else text)

    def data(self, data: bytes) -> None:
        """Write raw bytes; to a terminal, escaped text."""
        if sys.stdout is None:
            raise OutputError("Can't write the result: standard output is closed.")
        if self.is_terminal:
            text = data.decode("utf-8", "backslashreplace")
            self.line("\n".join(neutral(part) for part in text.split("\n")))
            return
        try:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError as error:
            raise _failure(error) from None


def _columns() -> int:
    # It loads a dozen modules, and most results are no table.
    import shutil

    return shutil.get_terminal_size().columns


def _failure(error: OSError) -> Exception:
    """Return the error of a failed write; a closed pipe is a BrokenPipeError."""
    if error.errno in {errno.EPIPE, errno.ESHUTDOWN}:
        return BrokenPipeError(error.errno, error.strerror)
    return OutputError(f"Can't write the result: {error.strerror}.")
