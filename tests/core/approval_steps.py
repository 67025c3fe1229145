# SPDX-License-Identifier: MIT
"""
Steps on approvals that tests interrupt, and a program that makes one.

Usage: ``python -m tests.core.approval_steps KIND FOLDER STEP``. It opens the store of
the folder, prints ``open``, waits for a line, makes the step, and prints ``done``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from hsm_core.protocols import ApprovalQuery, ApprovalStore
from tests.core.approval_support import (
    ROWS,
    Register,
    approval_id_of,
    digest_of,
    person,
    register_of,
)

Seen: TypeAlias = dict[str, bytes | None]
"""Of each approval its record."""


def _reserve(register: Register) -> None:
    register.reserve(
        approval_id_of(2), operation_id="op", digest=digest_of(2), requester="ann"
    )


STEPS: dict[str, Callable[[Register], object]] = {
    "insert": lambda register: register.ask(9),
    "decide": lambda register: register.decide(
        approval_id_of(1), person("bob"), granted=True
    ),
    "deny": lambda register: register.decide(
        approval_id_of(2), person("bob-2"), granted=False, comment="no"
    ),
    "cancel": lambda register: register.cancel(approval_id_of(1), requester="ann"),
    "reserve": _reserve,
    "consume": lambda register: register.consume(
        approval_id_of(3), operation_id="op-3"
    ),
}
"""Each changes one approval of the template, or adds one."""


def step(store: ApprovalStore, name: str) -> None:
    """Make a step on a store, or remove approvals 1 to 3 from it."""
    if name == "remove":
        store.remove([approval_id_of(number) for number in (1, 2, 3)])
    else:
        STEPS[name](register_of(store))


def make_template(store: ApprovalStore) -> None:
    """Put three approvals into a store: one pending, one granted, one reserved."""
    register = register_of(store)
    for number in (1, 2, 3):
        register.ask(number)
    for number in (2, 3):
        register.decide(approval_id_of(number), person("bob"), granted=True)
    register.reserve(
        approval_id_of(3), operation_id="op-3", digest=digest_of(3), requester="ann"
    )


def seen(store: ApprovalStore) -> Seen:
    """Return all that a store has; all of it is sound, and its index agrees."""
    assert () == register_of(store).check()
    found = {name: store.get(name) for name in store.approval_ids()}
    assert len(found) == len(store.find(ApprovalQuery()))
    return found


def main(kind: str, folder: Path, name: str) -> None:
    """Open, wait, make the step, and say so."""
    (row,) = (row for row in ROWS if row.name == kind)
    store = row.open(folder)
    sys.stdout.write("open\n")
    sys.stdout.flush()
    sys.stdin.readline()
    step(store, name)
    sys.stdout.write("done\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
