# SPDX-License-Identifier: MIT
"""Standard output and error: JSON for programs; text and progress for people."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Final, Self

from hsm_core.errors import HSMError

if TYPE_CHECKING:
    from hsm_cli.io.tables import Column

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


class OutputError(HSMError):
    """A result could not be written."""

    code: ClassVar[str] = "output"


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


class Form(StrEnum):
    """Form of output."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    JSONL = "jsonl"


class Output:
    """
    Standard output in the requested form.

    Attributes:
        form: Form of results: text, or JSON.
        field: Name of the only field to print, or empty.
        colour: Whether output to a terminal may be colored.
    """

    def __init__(
        self, *, form: Form = Form.TABLE, field: str = "", colour: bool = True
    ) -> None:
        self.form = form
        self.field = field
        self.colour = colour

    @property
    def is_record(self) -> bool:
        """Whether results are written as records: JSON, or one field."""
        return bool(self.field) or self.form in {Form.JSON, Form.JSONL}

    @property
    def is_terminal(self) -> bool:
        """Whether standard output is a terminal."""
        return sys.stdout is not None and sys.stdout.isatty()

    @property
    def width(self) -> int:
        """Columns of the terminal, or 0 if standard output is none."""
        return terminal_columns() if self.is_terminal else 0

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
        if self.is_record:
            self._write_records(value, None)
        else:
            self.line(neutral(text))

    def pairs(
        self, value: object, pairs: Sequence[tuple[str, str]], headline: str = ""
    ) -> None:
        """
        Write a record as JSON, or as names with values.

        Args:
            value: The record.

            pairs: Names and values; empty values are omitted.

            headline: Line above them, or nothing.
        """
        if self.is_record:
            self._write_records(value, None)
            return
        from hsm_cli.io.tables import render_pairs

        if headline:
            self.line(neutral(headline))
        if shown := [(name, text) for name, text in pairs if text]:
            self.line(render_pairs(shown))

    def table(
        self,
        value: object,
        items: Sequence[object],
        columns: Sequence[Column],
        footer: str = "",
    ) -> None:
        """
        Write a record as JSON, or its items as a table with a footer.

        Args:
            value: The record.

            items: Its items, which are written one per line in the form jsonl.

            columns: Columns of the table.

            footer: Line below the table, or nothing. It stands alone if there are no
                items.
        """
        if self.is_record:
            self._write_records(value, items)
            return
        if footer and not items:
            self.line(neutral(footer))
            return
        from hsm_cli.io.tables import render_records

        text = render_records(
            columns,
            items,
            is_wide=self.form is Form.WIDE,
            width=self.width,
            colour=self.colour,
        )
        self.line(f"{text}\n\n{neutral(footer)}" if footer else text)

    def _write_records(self, value: object, items: Sequence[object] | None) -> None:
        """Write a record, or its items one by one."""
        from hsm_cli.io.records import encode_record, field_text, has_field

        if self.field:
            is_inner = items is not None and not has_field(value, self.field)
            for record in items or () if is_inner else (value,):
                for text in field_text(record, self.field).split("\n"):
                    self.line(neutral(text))
        elif items is not None and self.form is Form.JSONL:
            for record in items:
                self.line(encode_record(record))
        else:
            self.line(encode_record(value))

    def data(self, data: bytes) -> None:
        """
        Write raw bytes; to a terminal, only text.

        Raises:
            OutputError: Standard output is closed, or it is a terminal and *data* is
                no text.
        """
        if sys.stdout is None:
            raise OutputError("Can't write the result: standard output is closed.")
        if self.is_terminal:
            self.line("\n".join(neutral(part) for part in _as_text(data).split("\n")))
            return
        try:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError as error:
            raise _failure(error) from None


def _as_text(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise OutputError(
            f"The result is {len(data)} bytes of binary data, which are not printed on "
            "a terminal. Pass -o FILE, or redirect standard output."
        )
    return text


def terminal_columns() -> int:
    """Return the width of the terminal."""
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
