# SPDX-License-Identifier: MIT
"""Waiting until other people have agreed to an operation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from hsm_cli.exit_codes import ApprovalEndedError
from hsm_cli.io.output import print_note
from hsm_core.errors import ApprovalRequiredError, UnavailableError
from hsm_core.model import ApprovalState
from hsm_core.operations import ApprovalInfo, GetApproval
from hsm_core.protocols import HSM

R = TypeVar("R")

_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 15.0
_GROWTH: Final = 1.25
_OPEN: Final = frozenset({ApprovalState.PENDING, ApprovalState.RESERVED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """
    How long somebody waits for other people.

    Attributes:
        seconds: At most so long; None as long as the approval is open.
        pause: Waits, given seconds.
        now: Seconds of a clock that is never set.
    """

    seconds: float | None = None
    pause: Callable[[float], None] = field(default=time.sleep, repr=False)
    now: Callable[[], float] = field(default=time.monotonic, repr=False)


def perform(hsm: HSM, attempt: Callable[[], R], patience: Patience) -> R:
    """
    Do what needs the approval of other people as soon as they have agreed.

    Args:
        hsm: Where the approval is looked at.

        attempt: Executes the operation, the same each time.

        patience: How long to wait.

    Raises:
        ApprovalRequiredError: They have not agreed in time; the request stays open.
        ApprovalEndedError: It was denied, cancelled, or has expired.
        HSMError: What *attempt* raises besides.
    """
    begun, asked = patience.now(), ""
    pauses = _pauses()
    while True:
        try:
            return attempt()
        except ApprovalRequiredError as error:
            required = error
        approval_id = str(required.facts.get("approval_id", ""))
        if not approval_id:
            raise required
        if asked != approval_id:
            print_note(f"waiting for the approval {approval_id}")
            asked = approval_id
        while True:
            # Also before the operation is tried again: what is granted and yet not
            # enough must not be tried without end, nor without rest.
            _rest(patience, begun, next(pauses), required)
            if _is_granted(hsm, approval_id):
                break


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(pause * _GROWTH, _LONGEST_PAUSE_SECONDS)


def _rest(
    patience: Patience, begun: float, pause: float, required: ApprovalRequiredError
) -> None:
    """Pause, but not for longer than the patience lasts."""
    if patience.seconds is not None:
        left = begun + patience.seconds - patience.now()
        if left <= 0:
            raise required
        pause = min(pause, left)
    patience.pause(pause)


def _is_granted(hsm: HSM, approval_id: str) -> bool:
    try:
        approval = hsm.execute(GetApproval(approval_id=approval_id))
    except UnavailableError as error:
        print_note(f"{error} [{error.code}]; it goes on when it can.")
        return False
    if approval.state is ApprovalState.GRANTED:
        return True
    if approval.state in _OPEN:
        return False
    raise ApprovalEndedError(
        f"The approval {approval_id} is {approval.state}{_why(approval)}.",
        approval_id=approval_id,
        state=approval.state.value,
    )


def _why(approval: ApprovalInfo) -> str:
    """Return who denied it and why, if anybody did."""
    for decision in approval.decisions:
        if not decision.granted:
            return f" by {decision.principal}: {decision.comment}"
    return ""
