# SPDX-License-Identifier: MIT
"""
Attacks on stored approvals by somebody who has not the key, in files and in SQLite.

Each changes the records of a closed store and returns the ids of those that are bad.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

OTHER_ID: Final = "00000000-0000-4000-8000-000000000001"


class Records:
    """
    The records of a store, as its files or rows have them.

    Args:
        folder: Where ``approvals`` or ``approvals.sqlite`` is.

        kind: ``filesystem`` or ``sqlite``.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder = folder / "approvals" if kind == "filesystem" else None
        self._database = folder / "approvals.sqlite"

    def __getitem__(self, approval_id: str) -> bytes:
        if self._folder is not None:
            return (self._folder / f"{approval_id}.json").read_bytes()
        ((record,),) = self._run(
            "SELECT record FROM approvals WHERE approval_id = ?", approval_id
        )
        assert isinstance(record, bytes)
        return record

    def __setitem__(self, approval_id: str, record: bytes) -> None:
        if self._folder is not None:
            path = self._folder / f"{approval_id}.json"
            path.touch(mode=0o600)
            path.write_bytes(record)
            return
        self._run(
            "INSERT INTO approvals VALUES (NULL, ?, 2, 'granted', 'ann', ?, 0, 0, ?) "
            "ON CONFLICT (approval_id) DO UPDATE SET record = excluded.record",
            *(approval_id, "0" * 64, record),
        )

    def __delitem__(self, approval_id: str) -> None:
        if self._folder is not None:
            (self._folder / f"{approval_id}.json").unlink()
        else:
            self._run("DELETE FROM approvals WHERE approval_id = ?", approval_id)

    def _run(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self._database)) as database, database:
            return database.execute(statement, values).fetchall()


@dataclass(frozen=True)
class Case:
    """
    What is attacked.

    Attributes:
        granted: Id of an approval that bob has granted.
        before: Its record before he had.
        pending: Id of one that waits.
        foreign: Id and record of a granted one of another HSM of the same keys.
    """

    granted: str
    before: bytes
    pending: str
    foreign: tuple[str, bytes]


ApprovalAttack: TypeAlias = Callable[[Records, Case], set[str]]


def edit(records: Records, case: Case) -> set[str]:
    """Let somebody else have approved."""
    records[case.granted] = records[case.granted].replace(b'"bob"', b'"dan"')
    return {case.granted}


def grant(records: Records, case: Case) -> set[str]:
    """Call granted what waits."""
    records[case.pending] = records[case.pending].replace(b'"pending"', b'"granted"')
    return {case.pending}


def cut(records: Records, case: Case) -> set[str]:
    """Cut the end of a record off."""
    records[case.granted] = records[case.granted][:-1]
    return {case.granted}


def empty(records: Records, case: Case) -> set[str]:
    """Leave nothing of it."""
    records[case.granted] = b""
    return {case.granted}


def delete(records: Records, case: Case) -> set[str]:
    """Remove it."""
    del records[case.granted]
    return {case.granted}


def move(records: Records, case: Case) -> set[str]:
    """Give it another id, outside only."""
    records[OTHER_ID] = records[case.granted]
    del records[case.granted]
    return {case.granted, OTHER_ID}


def insert_a_copy(records: Records, case: Case) -> set[str]:
    """Add it a second time, under another id."""
    records[OTHER_ID] = records[case.granted]
    return {OTHER_ID}


def insert_a_forgery(records: Records, case: Case) -> set[str]:
    """Add one that has another id inside too."""
    ids = case.granted.encode(), OTHER_ID.encode()
    records[OTHER_ID] = records[case.granted].replace(*ids)
    return {OTHER_ID}


def insert_a_foreign_one(records: Records, case: Case) -> set[str]:
    """Add one of another HSM, with a right MAC of the same key."""
    records[case.foreign[0]] = case.foreign[1]
    return {case.foreign[0]}


def restore(records: Records, case: Case) -> set[str]:
    """Put it back as it was before."""
    records[case.granted] = case.before
    return {case.granted}


def swap(records: Records, case: Case) -> set[str]:
    """Let two change places."""
    one, two = records[case.granted], records[case.pending]
    records[case.granted], records[case.pending] = two, one
    return {case.granted, case.pending}


ATTACKS: Final[tuple[ApprovalAttack, ...]] = (
    *(edit, grant, cut, empty, delete, move, restore, swap),
    *(insert_a_copy, insert_a_forgery, insert_a_foreign_one),
)
