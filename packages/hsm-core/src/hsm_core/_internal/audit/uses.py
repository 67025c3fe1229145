# SPDX-License-Identifier: MIT
"""
Entries of uses of keys, found many at a time.

Nearly every entry of a log is one of a use, and has one form. Entries of this form are
compared, hashed and authenticated together; all others are looked at one by one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice, takewhile
from operator import itemgetter
from typing import BinaryIO, Final, NamedTuple, TypeAlias

from hsm_core._internal.audit.facts import MAX_LINE_BYTES

Line: TypeAlias = tuple[bytes, bytes, bytes, bytes, bytes, bytes]
"""
A line of a log: an entry of a use behind a zero byte, as it is hashed, with its seq,
prev, facts and MAC; or, as the last item alone, any other line.
"""

NO_USE: Final[Line] = (b"", b"", b"", b"", b"", b"")
_TEXT: Final = rb"[ !#-\[\]-~]+"
_HASH: Final = rb"[^\n]{64}"
_NUMBER: Final = rb"(?>0|-?[1-9][0-9]{0,14})"
_USE: Final = (
    rb'\{"format":2,"seq":"(.{16})","prev":"(.{64})","time":"[0-8][0-9]{15}",'
    rb'"kind":"(?!system\.)%(text)b"'
    rb'(?>,"code":"(?!ok")%(text)b")?+'
    rb'(?>,"request_id":"%(text)b")?+'
    rb',"facts":"(.{64})"'
    rb'(?>,"numbers":\[%(number)b(?>,%(number)b)*+\])?+'
    rb'(?>,"revision":[1-9][0-9]{0,14})?+'
    rb'(?>,"bind":"%(hash)b")?+'
    rb'(?>,"digest":"%(hash)b")?+'
    rb'(?>,"detail":\{"type":"batch","count":[0-9]{1,9},"failed":[0-9]{1,9}\})?+'
    rb',"mac":"(.{64})"\}'
) % {b"text": _TEXT, b"hash": _HASH, b"number": _NUMBER}
"""An entry of a use, if its seq and its hashes are what they should be."""

_ENTRY: Final = re.compile(_USE, re.DOTALL)
_LINES: Final = re.compile(rb"(\0%b)\n|\0([^\n]*)\n" % _USE, re.DOTALL)
_is_use: Final = itemgetter(0)
_BLOCK: Final = 32 * 1024
_MAX_LINE: Final = MAX_LINE_BYTES + 1


def is_use(entry: bytes) -> bool:
    """Return whether an authentic entry is one of a use, and says nothing more."""
    return _ENTRY.fullmatch(entry) is not None


def lines_of(data: bytes) -> list[Line]:
    """Return the lines of bytes that end with a newline."""
    return _LINES.findall((b"\0" + data).replace(b"\n", b"\n\0"))


def uses_from(lines: Sequence[Line], at: int) -> list[Line]:
    """Return the uses that follow each other from a position on."""
    return list(takewhile(_is_use, islice(lines, at, None)))


class Uses(NamedTuple):
    """Entries of uses that follow each other, by what is compared."""

    entries: tuple[bytes, ...]
    seqs: tuple[bytes, ...]
    prevs: tuple[bytes, ...]
    facts: tuple[bytes, ...]
    macs: tuple[bytes, ...]

    @classmethod
    def of(cls, lines: Sequence[Line]) -> Uses:
        """Return lines that are uses, at least one."""
        return cls(*islice(zip(*lines, strict=True), 5))


class LineReader:
    """
    Lines of a segment from where its file stands, read in blocks.

    Args:
        file: The segment.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lines: list[Line] = []
        self._at = 0
        self._cut = b"\0"

    def uses(self, limit: int | None = None) -> list[Line]:
        """
        Return the uses that come next, as far as they are read; see `skip`.

        Args:
            limit: How many at most.
        """
        if self._at == len(self._lines):
            self._fill()
        return uses_from(self._lines, self._at)[:limit]

    def skip(self, count: int) -> None:
        """Go on behind the first *count* lines that `uses` returned."""
        self._at += count

    def readline(self) -> bytes:
        """
        Return the next line with its newline.

        A line at the end has none if it is cut off, nor has one that is too long, up to
        the longest; nothing is there at the end.
        """
        if self._at == len(self._lines):
            self._fill()
        if self._at == len(self._lines):
            line, rest = self._cut[1 : 1 + _MAX_LINE], self._cut[1 + _MAX_LINE :]
            self._cut = b"\0" + rest
            return line
        found = self._lines[self._at]
        # What should be a hash may hold a newline: then these are two lines.
        data = (found[0][1:] or found[-1]).replace(b"\n\0", b"\n") + b"\n"
        line = data[: data.find(b"\n", 0, _MAX_LINE) + 1] or data[:_MAX_LINE]
        if rest := data[len(line) : -1]:
            self._lines[self._at] = (*NO_USE[:-1], rest)
        else:
            self._at += 1
        return line

    def _fill(self) -> None:
        """Read the next lines; what is cut off waits for its rest."""
        self._lines, self._at = [], 0
        while not self._lines and len(self._cut) <= _MAX_LINE:
            read = self._file.read(_BLOCK)
            if not read:
                return
            data = self._cut + read.replace(b"\n", b"\n\0")
            end = data.rfind(b"\n") + 1
            self._cut = data[end:]
            self._lines = _LINES.findall(data, 0, end)
