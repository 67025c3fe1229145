# SPDX-License-Identifier: MIT
"""Standard output and error: JSON for programs; text, tables, progress for people."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Final, Self

from hsm_core.errors import HSMError

_ACTIVE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""C0 and C1 controls, direction marks, invisible formats, surrogates, tags."""


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _json_escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(
        f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)
    )


def neutral(text: str, /) -> str:
    r"""
    Return *text* with every active terminal character escaped.

    Example:
        >>> neutral("red\x1b[31m")
        'red\\x1b[31m'
    """
    return _ACTIVE.sub(_escape, text)


def neutral_json(text: str, /) -> str:
    """Return equivalent JSON text without active terminal characters."""
    return _ACTIVE.sub(_json_escape, text)


def render_pairs(pairs: Sequence[tuple[str, str]]) -> str:
    """Return names and values, aligned, one pair a line."""
    clean = [(neutral(name), neutral(value)) for name, value in pairs]
    width = max(len(name) for name, _ in clean)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in clean)


def render_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    terminal: bool,
    colour: bool,
) -> str:
    """
    Return a table.

    Args:
        header: Names of the columns.

        rows: Cells; every row is as long as the header.

        terminal: Whether to fit it to the terminal's width; otherwise columns are
            aligned and rows never wrapped, for use by programs.

        colour: Whether output to a terminal may be colored.
    """
    clean = [[neutral(cell) for cell in row] for row in rows]
    if terminal:
        return _drawn(header, clean, colour=colour)
    lines = [[name.upper() for name in header], *clean]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def _drawn(header: Sequence[str], rows: list[list[str]], *, colour: bool) -> str:
    import shutil

    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in header:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(
        width=shutil.get_terminal_size().columns,
        force_terminal=colour,
        no_color=not colour,
        color_system="standard" if colour else None,
        highlight=False,
        legacy_windows=False,
    )
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


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


def ask(prompt: str) -> str:
    """Print a prompt on standard error; return the typed line, empty at the end."""
    if sys.stderr is not None:
        sys.stderr.write(prompt)
        sys.stderr.flush()
    return sys.stdin.readline() if sys.stdin is not None else ""


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


_BAR_CHARACTERS: Final = 24


class Progress:
    """
    Progress line that is updated in place, and cleared at the end.

    Args:
        what: Counted unit, in the plural.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def show(self, done: int, total: int | None = None) -> None:
        """Show progress; with a bar if *total* is known."""
        if sys.stderr is None or not sys.stderr.isatty():
            return
        text = f"{done} {self._what}"
        if total:
            filled = min(done, total) * _BAR_CHARACTERS // total
            bar = "#" * filled + "-" * (_BAR_CHARACTERS - filled)
            text = f"[{bar}] {done} of {total} {self._what}"
        if text != self._shown:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
            self._shown = text
