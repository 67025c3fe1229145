# SPDX-License-Identifier: MIT
"""Whoever plants a bug in the product is found out by some seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import msgspec
import pytest

from hsm_core._internal.approvals import states as rules
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.handlers.destruction import PurgeVersion
from hsm_core._internal.keyring.journal import Journal
from hsm_core._internal.pipeline.authorisation import Admission
from hsm_core._internal.retention.decisions import (
    Consent,
    PurgeDecision,
    PurgeDecisions,
)
from hsm_core._internal.time.clock import SteadyTime
from hsm_core.model import Approval, ApprovalState
from hsm_core.operations import Operation
from tests.simulation.run import FailedLifeError, simulate

MOST_SEEDS: Final = 500

Plant: TypeAlias = Callable[[pytest.MonkeyPatch], None]


class _Done:
    """A ticket that promises nothing."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait for nobody."""


def lost_outcome(patch: pytest.MonkeyPatch) -> None:
    """The answer does not wait for the record of what was done."""
    conclude = Journal.conclude

    def hurried(self: Journal, draft: Any) -> Any:
        conclude(self, draft)
        return _Done()

    patch.setattr(Journal, "conclude", hurried)


def self_approval(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks whether who agrees is who asked."""
    patch.setattr(rules, "are_one", lambda one, other, **how: False)


def purge_without_approval(patch: pytest.MonkeyPatch) -> None:
    """That people were asked is as good as that they agreed."""
    look, take = PurgeDecisions.look, Admission.take_approval
    check = Admission.check_approvals

    def hasty(
        self: PurgeDecisions, operation: Operation[Any], now: int
    ) -> PurgeDecision | None:
        answer = look(self, operation, now)
        is_purge = isinstance(operation, PurgeVersion)
        if answer is None or not is_purge or answer.consent is not Consent.ASKED:
            return answer
        granted = msgspec.structs.replace(answer.approval, state=ApprovalState.GRANTED)
        return PurgeDecision(Consent.GRANTED, granted)

    def taken(self: Admission, context: RequestContext[Any]) -> None:
        if not isinstance(context.operation, PurgeVersion):
            take(self, context)

    def checked(self: Admission, context: RequestContext[Any]) -> None:
        if not isinstance(context.operation, PurgeVersion):
            check(self, context)

    patch.setattr(PurgeDecisions, "look", hasty)
    patch.setattr(Admission, "take_approval", taken)
    patch.setattr(Admission, "check_approvals", checked)


def double_spend(patch: pytest.MonkeyPatch) -> None:
    """What was done leaves its approval as it was."""

    def kept(approval: Approval, operation_id: str, now: int) -> Approval:
        return rules.released(approval, operation_id)

    patch.setattr(rules, "consumed", kept)


def revived_expiry(patch: pytest.MonkeyPatch) -> None:
    """Time goes back with the clock, and what had expired is good again."""
    expired = rules.expired

    def as_the_clock_says(self: SteadyTime, instant: int) -> int:
        return self._clock.now()

    def revived(approval: Approval, now: int) -> Approval:
        if approval.state is ApprovalState.EXPIRED and now < approval.expires_at:
            return msgspec.structs.replace(
                approval,
                generation=approval.generation + 1,
                state=ApprovalState.PENDING,
                closed_at=0,
            )
        return expired(approval, now)

    patch.setattr(SteadyTime, "_advance", as_the_clock_says)
    patch.setattr(rules, "expired", revived)


BUGS: Final[Mapping[str, Plant]] = {
    "self-approval": self_approval,
    "double spend": double_spend,
    "purge without approval": purge_without_approval,
    "revived expiry": revived_expiry,
    "lost outcome": lost_outcome,
}


@contextmanager
def planted(plant: Plant) -> Iterator[None]:
    """Let a bug be in the product for the duration of a ``with`` block."""
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        yield


def first_to_fail(plant: Plant) -> tuple[int, FailedLifeError] | None:
    """Return the first seed that a bug shows in, and how."""
    with planted(plant):
        for seed in range(MOST_SEEDS):
            try:
                simulate(seed)
            except FailedLifeError as failure:
                return seed, failure
    return None


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str) -> None:
    """Each is found within 500 seeds; which one found it is printed."""
    found = first_to_fail(BUGS[bug])

    assert found is not None
    seed, failure = found
    print(f"{bug}: found by seed {seed}: {str(failure).splitlines()[-2]}")  # noqa: T201
