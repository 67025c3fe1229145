# SPDX-License-Identifier: MIT
"""
Escaped text for a terminal or a pipe.

Characters from a server that move the cursor, change colors or reorder text are written
as escapes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

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
