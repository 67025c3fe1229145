# SPDX-License-Identifier: MIT
"""
Removing approvals that came to an end long ago.

Only time that is known to have passed makes one older, as with records of the trail:
while the HSM runs, what the monotonic clock counts; before that, what lies between
instants of stored approvals, but never more than a week between two of them. So a clock
that stepped forwards removes nothing early. Where approvals are rare, and the HSM is
started often, they stay for longer; then they are few.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from hsm_core._internal.approvals.records import instants_of
from hsm_core._internal.approvals.repository import ApprovalRegister
from hsm_core.errors import ApprovalNotFoundError, ApprovalTamperedError
from hsm_core.model import Approval

_IDLE: Final = 7 * 24 * 3600 * 1_000_000
_DAY: Final = 24 * 3600 * 1_000_000
_BATCH: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedApprovals:
    """
    What a prune did.

    Attributes:
        removed: Ids of the approvals that are gone.
        tampered: Ids of those that can't be believed, and stay.
    """

    removed: tuple[str, ...]
    tampered: tuple[str, ...]


def prune_approvals(register: ApprovalRegister, days: int) -> PrunedApprovals:
    """
    Remove approvals that came to an end more than so many days ago.

    Pending, granted and reserved ones stay, however old. What can't be authenticated
    stays too, and is named. Those whose time has come are written down as expired.

    Args:
        register: All approvals.

        days: Age, counted from the end; 0 removes nothing.

    Raises:
        StoreUnavailableError: Some may have been removed.
        OutcomeUnknownError: The same; the store must be reopened.
    """
    if days <= 0:
        return PrunedApprovals(removed=(), tampered=())
    closed: dict[str, int] = {}
    tampered: list[str] = []
    instants = {register.opened_at}
    for approval_id in register.store.approval_ids():
        try:
            approval = register.get(approval_id)
        except ApprovalTamperedError:
            tampered.append(approval_id)
            continue
        except ApprovalNotFoundError:
            continue
        _note(approval, register.opened_at, closed, instants)
    age = _Age(register, sorted(instants))
    old = [name for name, end in closed.items() if age.of(end) > days * _DAY]
    for start in range(0, len(old), _BATCH):
        register.remove(old[start : start + _BATCH])
    return PrunedApprovals(removed=tuple(old), tampered=tuple(tampered))


def _note(
    approval: Approval, opened_at: int, closed: dict[str, int], instants: set[int]
) -> None:
    instants.update(at for at in instants_of(approval) if at <= opened_at)
    if approval.closed_at:
        closed[approval.approval_id] = approval.closed_at


class _Age:
    """
    How much time is known to have passed since an instant.

    Args:
        register: Knows the time, and what of it was counted while it was open.

        instants: Known ones, ascending; the last is when the register was made.
    """

    def __init__(self, register: ApprovalRegister, instants: Sequence[int]) -> None:
        self._now = register.time.now()
        self._leapt = max(0, self._now - register.opened_at - register.time.passed())
        self._instants = instants
        leaps = [max(0, later - at - _IDLE) for at, later in pairwise(instants)]
        # What doesn't count after the n-th instant.
        self._uncounted = [0]
        for leap in reversed(leaps):
            self._uncounted.append(self._uncounted[-1] + leap)
        self._uncounted.reverse()

    def of(self, at: int) -> int:
        """Return the age of what happened at one of the instants, or later."""
        place = bisect_right(self._instants, at) - 1
        return self._now - at - self._leapt - self._uncounted[place]
