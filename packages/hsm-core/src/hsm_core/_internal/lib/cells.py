# SPDX-License-Identifier: MIT
"""
Cells, which show that something has changed, and snapshots of them.

A change of what a decision may rest on bumps its cell: after the change is visible,
and before it is answered and before its outcome is recorded. A decision takes a
snapshot of each cell *before* reading what it stands for. So a snapshot that still
holds under the audit log's lock shows that the decision is not behind the change.
"""

from __future__ import annotations

from typing import Final

_KEY_CELLS: Final = 1024


class Cell:
    """
    Mark of one subject; each change replaces its value. Safe for many threads.

    Attributes:
        value: Compared by identity, so that no change hides another.
    """

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = object()

    def bump(self) -> None:
        """Note a change that is visible by now."""
        mark = object()
        # After the value, so that it is never seen before that; and without a call in
        # between, where an interrupt could leave snapshots that miss the change.
        self.value = mark
        _NEWEST.value = mark


class _Newest:
    """Mark that every change replaces, so that most snapshots need no comparison."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = object()


_NEWEST: Final = _Newest()


class KeyCells:
    """Cells of keys and approvals; some share one, so that their number is fixed."""

    def __init__(self) -> None:
        self._cells = tuple(Cell() for _ in range(_KEY_CELLS))

    def of(self, subject: str) -> Cell:
        """Return the cell of a key or an approval."""
        return self._cells[hash(subject) % _KEY_CELLS]


class Snapshot:
    """Values of cells, each as it was before its subject was read."""

    __slots__ = ("_compared", "_marks")

    def __init__(self, *cells: Cell) -> None:
        self._marks = [(cell, cell.value) for cell in cells]
        self._compared: object = None

    def add(self, cell: Cell) -> None:
        """Include a further cell, from now on."""
        self._marks.append((cell, cell.value))
        self._compared = None

    def holds(self) -> bool:
        """Return whether nothing has changed since."""
        newest = _NEWEST.value
        if self._compared is newest:
            return True
        for cell, value in self._marks:
            if cell.value is not value:
                return False
        self._compared = newest
        return True
