# SPDX-License-Identifier: MIT
"""Text for people: names with values, and tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from hsm_cli.io.output import neutral

SHORT_ID_CHARACTERS: Final = 8
"""Length of the start of an ID in tables; commands accept it."""

_NOTHING: Final = "-"


class Column(msgspec.Struct, frozen=True):
    """
    Column of a table of records.

    Attributes:
        name: Its heading.
        cell: Text of a record in the usual table; None leaves the column out.
        wide: Text in the wide table; None means the same.
    """

    name: str
    cell: Callable[[Any], str] | None
    wide: Callable[[Any], str] | None = None


def short_id(text: str) -> str:
    """Return the start of a UUID, which commands accept in its place."""
    return text[:SHORT_ID_CHARACTERS]


def render_pairs(pairs: Sequence[tuple[str, str]]) -> str:
    """Return names and values, aligned, one pair a line."""
    clean = [(neutral(name), neutral(value)) for name, value in pairs]
    width = max(len(name) for name, _ in clean)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in clean)


def render_records(
    columns: Sequence[Column],
    items: Sequence[Any],
    *,
    is_wide: bool,
    width: int,
    colour: bool,
) -> str:
    """
    Return a table of records.

    Args:
        columns: Its columns.

        items: The records.

        is_wide: Whether all columns are shown, with complete IDs. If the terminal is
            too narrow, each record is a block of names with values.

        width: Columns of the terminal, in which long cells are cut. 0 means that the
            output is no terminal: rows have any length.

        colour: Whether output to a terminal may be colored.
    """
    header = [column.name for column in columns if is_wide or column.cell]
    rows = [row(columns, item, is_wide=is_wide) for item in items]
    if is_wide and rows and 0 < width < _natural_width(header, rows):
        blocks = (
            [
                (name.lower(), cell)
                for name, cell in zip(header, cells, strict=True)
                if cell != _NOTHING
            ]
            for cells in rows
        )
        return "\n\n".join(map(render_pairs, blocks))
    return render_table(header, rows, width=width, colour=colour)


def row(columns: Sequence[Column], item: object, *, is_wide: bool) -> list[str]:
    """Return the cells of a record; an empty one is a hyphen."""
    cells = (
        column.wide if is_wide and column.wide is not None else column.cell
        for column in columns
    )
    return [cell(item) or _NOTHING for cell in cells if cell is not None]


def _natural_width(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    widths = _widths([list(header), *map(list, rows)])
    return sum(widths) + 2 * (len(widths) - 1)


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, cells)) for cells in zip(*lines, strict=True)]


def render_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int,
    colour: bool,
    fold: bool = False,
) -> str:
    """
    Return a table.

    Args:
        header: Names of the columns.

        rows: Cells; every row is as long as the header.

        width: Columns of the terminal, or 0 for other output, in which columns are
            aligned and rows have any length.

        colour: Whether output to a terminal may be colored.

        fold: Whether long cells take several lines of a terminal; otherwise they are
            cut.
    """
    clean = [[neutral(cell) for cell in row] for row in rows]
    if width:
        return _drawn(header, clean, width, colour=colour, fold=fold)
    lines = [[name.upper() for name in header], *clean]
    widths = _widths(lines)
    return "\n".join(
        "  ".join(
            f"{cell:<{size}}" for cell, size in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def _drawn(
    header: Sequence[str],
    rows: list[list[str]],
    width: int,
    *,
    colour: bool,
    fold: bool,
) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(Text(name.upper()), overflow="fold")
    for row in rows if fold else _cut(header, rows, width):
        table.add_row(*map(Text, row))
    console = Console(
        width=width,
        force_terminal=colour,
        no_color=not colour,
        color_system="standard" if colour else None,
        highlight=False,
        legacy_windows=False,
    )
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


_LEAST_CHARACTERS: Final = 8
_MARGIN: Final = 2


def _cut(header: Sequence[str], rows: list[list[str]], width: int) -> list[list[str]]:
    """Cut the longest cells so that the table fits, the widest column first."""
    from rich.cells import cell_len, set_cell_size

    lines = [list(header), *rows]
    widths = [max(map(cell_len, cells)) for cells in zip(*lines, strict=True)]
    excess = sum(widths) + _MARGIN * (len(widths) - 1) - width
    for column in sorted(range(len(widths)), key=lambda i: -widths[i]):
        least = max(_LEAST_CHARACTERS, cell_len(header[column]))
        saved = min(max(excess, 0), max(widths[column] - least, 0))
        widths[column] -= saved
        excess -= saved
    return [
        [
            cell
            if cell_len(cell) <= size
            else f"{set_cell_size(cell, size - 1).rstrip()}\N{HORIZONTAL ELLIPSIS}"
            for cell, size in zip(cells, widths, strict=True)
        ]
        for cells in rows
    ]
