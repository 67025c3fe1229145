# SPDX-License-Identifier: MIT
"""Any sequence of steps on approvals is what a small model says, over every store."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from hsm_core.errors import AccessDeniedError, ConflictError, HSMError
from hsm_core.model import Approval, ApprovalState
from hsm_core.protocols import ApprovalQuery
from hsm_core.testing import FakeClock
from tests.core.approval_support import (
    ROWS,
    ApprovalRow,
    approval_id_of,
    digest_of,
    person,
    register_of,
)

S = ApprovalState

NUMBERS = st.integers(1, 3)
PEOPLE = st.sampled_from(["ann", "Ann", "bob", "BOB", "carl", "dora"])
OPERATIONS = st.sampled_from(["op-1", "op-2"])


@dataclass
class Wanted:
    """What the model knows of one approval, made by ann."""

    quorum: int
    expires_at: int
    state: ApprovalState = S.PENDING
    said: dict[str, bool] = field(default_factory=dict)
    operation: str = ""


class Machine(RuleBasedStateMachine):
    """A register, and a model of it that knows no store."""

    row: ApprovalRow

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = FakeClock()
        self.latest = self.clock.now()
        self.model: dict[int, Wanted] = {}
        self.store = self.row.open(Path(self.folder.name))
        self.register = register_of(self.store, self.clock)

    def teardown(self) -> None:
        """Close the store and remove it."""
        self.store.close()
        self.folder.cleanup()

    def now(self) -> int:
        """Return the time by which approvals are judged."""
        self.latest = max(self.latest, self.clock.now())
        for wanted in self.model.values():
            if wanted.state in {S.PENDING, S.GRANTED}:
                if self.latest >= wanted.expires_at:
                    wanted.state = S.EXPIRED
        return self.latest

    def compare(
        self,
        number: int,
        step: Callable[[], Approval],
        error: type[HSMError] | None,
    ) -> None:
        """Make a step, which must end as the model says."""
        if error is None:
            assert self.model[number].state is step().state
            return
        with pytest.raises(error):
            step()

    @rule(number=NUMBERS, quorum=st.integers(1, 3), seconds=st.integers(1, 200))
    def insert(self, number: int, quorum: int, seconds: int) -> None:
        """Ask for an approval, perhaps again."""
        now = self.now()
        if number not in self.model:
            self.model[number] = Wanted(quorum, now + seconds * 1_000_000)
        ask = partial(self.register.ask, number, quorum=quorum, seconds=seconds)
        self.compare(number, ask, None)

    @rule(number=NUMBERS, name=PEOPLE, granted=st.booleans())
    def decide(self, number: int, name: str, granted: bool) -> None:
        """Let somebody grant or deny."""
        if number not in self.model:
            return
        self.now()
        wanted, who = self.model[number], name.lower()
        error: type[HSMError] | None = None
        if who == "ann":
            error = AccessDeniedError
        elif who in wanted.said:
            error = None if wanted.said[who] is granted else ConflictError
        elif wanted.state not in {S.PENDING, S.GRANTED}:
            error = ConflictError
        else:
            wanted.said[who] = granted
            if not granted:
                wanted.state = S.DENIED
            elif sum(wanted.said.values()) >= wanted.quorum:
                wanted.state = S.GRANTED
        self.compare(
            number,
            lambda: self.register.decide(
                approval_id_of(number), person(name), granted=granted
            ),
            error,
        )

    @rule(
        number=NUMBERS,
        operation=OPERATIONS,
        name=st.sampled_from(["ann", "ann", "bob"]),
        digest=st.sampled_from([0, 0, 1]),
    )
    def reserve(self, number: int, operation: str, name: str, digest: int) -> None:
        """Let somebody use an approval for something."""
        if number not in self.model:
            return
        self.now()
        wanted = self.model[number]
        error: type[HSMError] | None = None
        if name != "ann" or digest:
            error = AccessDeniedError
        elif wanted.state is not S.GRANTED:
            error = ConflictError
        else:
            wanted.state, wanted.operation = S.RESERVED, operation
        self.compare(
            number,
            lambda: self.register.reserve(
                approval_id_of(number),
                operation_id=operation,
                digest=digest_of(number + digest),
                requester=name,
            ),
            error,
        )

    @rule(number=NUMBERS, operation=OPERATIONS, done=st.booleans())
    def finish(self, number: int, operation: str, done: bool) -> None:
        """Use an approval up, or give it back."""
        if number not in self.model:
            return
        self.now()
        wanted = self.model[number]
        idle = S.CONSUMED if done else S.GRANTED
        mine = wanted.operation == operation
        error: type[HSMError] | None = None
        if wanted.state is S.RESERVED and mine:
            wanted.state = idle
            wanted.operation = operation if done else ""
        elif wanted.state is not idle or (done and not mine):
            error = ConflictError
        step = self.register.consume if done else self.register.release
        self.compare(
            number,
            lambda: step(approval_id_of(number), operation_id=operation),
            error,
        )
        self.now()

    @rule(number=NUMBERS, name=st.sampled_from(["ann", "bob"]))
    def cancel(self, number: int, name: str) -> None:
        """Let somebody cancel an approval."""
        if number not in self.model:
            return
        self.now()
        wanted = self.model[number]
        error: type[HSMError] | None = None
        if name != "ann":
            error = AccessDeniedError
        elif wanted.state in {S.PENDING, S.GRANTED}:
            wanted.state = S.CANCELLED
        elif wanted.state is not S.CANCELLED:
            error = ConflictError
        self.compare(
            number,
            lambda: self.register.cancel(approval_id_of(number), requester=name),
            error,
        )

    @rule(seconds=st.integers(0, 100))
    def wait(self, seconds: int) -> None:
        """Let time pass; after a step backwards it passes on top of what was known."""
        self.now()
        self.clock.advance(seconds)
        self.latest += seconds * 1_000_000

    @rule(seconds=st.integers(-3600, 30))
    def step_clock(self, seconds: int) -> None:
        """Set the wall clock."""
        self.register.time.now()
        self.now()
        self.clock.step(seconds)

    @rule()
    def restart(self) -> None:
        """Close the store and open it again, where it can be."""
        if self.row.durable:
            self.store.close()
            self.store = self.row.open(Path(self.folder.name))
        self.register = register_of(self.store, self.clock, floor=self.now())

    @rule(states=st.frozensets(st.sampled_from(S), max_size=2))
    def find(self, states: frozenset[ApprovalState]) -> None:
        """List approvals in some states."""
        self.now()
        page = self.register.find(ApprovalQuery(states=states))
        wanted = {
            (approval_id_of(number), known.state)
            for number, known in self.model.items()
            if not states or known.state in states
        }
        assert wanted == {(a.approval_id, a.state) for a in page.approvals}

    @invariant()
    def same(self) -> None:
        """Every approval is as the model says, and none is called tampered."""
        self.now()
        for number, wanted in self.model.items():
            found = self.register.get(approval_id_of(number))
            assert wanted.state is found.state
            assert len(wanted.said) == len(found.decisions)
            assert wanted.operation == found.operation_id
        assert () == self.register.check()


@pytest.mark.parametrize("row", ROWS[:3], ids=str)
def test_any_sequence(row: ApprovalRow) -> None:
    """
    Whatever is done in whatever order, a register does what the model does.
    """

    class OverRow(Machine):
        """The machine over one store."""

    OverRow.row = row
    count = 15 if row.durable else 40
    run_state_machine_as_test(
        OverRow, settings=settings(max_examples=count, deadline=None)
    )
