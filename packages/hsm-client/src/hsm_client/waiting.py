# SPDX-License-Identifier: MIT
"""Waiting for the approval of an operation."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, TypeVar

from hsm_client.steps import run_steps
from hsm_core.errors import ApprovalRequiredError, HSMError, UnavailableError
from hsm_core.model import ApprovalState
from hsm_core.operations.approvals import ApprovalInfo, GetApproval

if TYPE_CHECKING:
    # It loads asyncio, which commands do not need.
    from hsm_core.protocols import HSM

R = TypeVar("R")

_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 15.0
_GROWTH: Final = 1.25
_OPEN: Final = frozenset({ApprovalState.PENDING, ApprovalState.RESERVED})


class ApprovalEndedError(HSMError):
    """The approval that a caller waited for, or named, is closed."""

    code: ClassVar[str] = "approval_ended"


def _discard(text: str) -> None:
    """Discard a note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalWait:
    """
    Limits of the wait for an approval.

    Attributes:
        seconds: Maximum time; None means until the request is closed.
        pause: Sleeps for a number of seconds.
        now: Monotonic clock, in seconds.
        notify: Called with each note for the user.
    """

    seconds: float | None = None
    pause: Callable[[float], None] = field(default=time.sleep, repr=False)
    now: Callable[[], float] = field(default=time.monotonic, repr=False)
    notify: Callable[[str], None] = field(default=_discard, repr=False)


class Attempt:
    """Step of a wait: execute the operation."""


Steps: TypeAlias = Generator[Attempt | float | GetApproval, object, Any]
"""
Steps of a wait, in order: attempts, seconds to sleep, and looks at the request.

Its value is the result of the last attempt.

Each step is answered by its result, or by the `HSMError` that it raised.
"""


def execute_when_approved(hsm: HSM, attempt: Callable[[], R], wait: ApprovalWait) -> R:
    """
    Execute an operation, waiting for its approval if it needs one.

    Args:
        hsm: Returns the state of the approval.

        attempt: Executes the operation.

        wait: Limits of the wait.

    Raises:
        ApprovalRequiredError: Not approved in time; the request stays open.
        ApprovalEndedError: The request was denied or cancelled, or has expired.
        HSMError: Any other error of *attempt*.
    """

    def take(step: Attempt | float | GetApproval) -> object:
        match step:
            case Attempt():
                return attempt()
            case float():
                wait.pause(step)
                return None
            case _:
                return hsm.execute(step)

    result: R = run_steps(waiting(wait), take)
    return result


def waiting(wait: ApprovalWait) -> Steps:
    """
    Return the steps that execute an operation and wait for its approval.

    Raises:
        HSMError: See `execute_when_approved`.
    """
    begun, announced = wait.now(), ""
    pauses = _pauses()
    while True:
        try:
            return (yield Attempt())
        except ApprovalRequiredError as error:
            required = error
        approval_id = str(required.facts.get("approval_id", ""))
        if not approval_id:
            raise required
        if announced != approval_id:
            wait.notify(f"waiting for approval {approval_id}{_missing(required)}")
            announced = approval_id
        while True:
            # Pause before each attempt: a granted approval that is not enough must not
            # cause a busy loop.
            yield _rest(wait, begun, next(pauses), required)
            try:
                approval = yield GetApproval(approval_id=approval_id)
            except UnavailableError as error:
                wait.notify(f"{error} [{error.code}]; retrying.")
                continue
            if _is_granted(approval):
                break


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(pause * _GROWTH, _LONGEST_PAUSE_SECONDS)


def _rest(
    wait: ApprovalWait, begun: float, pause: float, required: ApprovalRequiredError
) -> float:
    """Return a pause, at most until the time limit."""
    if wait.seconds is not None:
        left = begun + wait.seconds - wait.now()
        if left <= 0:
            raise required
        pause = min(pause, left)
    return pause


def _missing(required: ApprovalRequiredError) -> str:
    """Return the demands not yet met, in parentheses, or nothing."""
    approval = required.approval
    if not isinstance(approval, ApprovalInfo) or not approval.missing:
        return ""
    return f" ({'; '.join(approval.missing)})"


def _is_granted(approval: object) -> bool:
    assert isinstance(approval, ApprovalInfo)  # noqa: S101 (for the type checker)
    if approval.state is ApprovalState.GRANTED:
        return True
    if approval.state in _OPEN:
        return False
    raise ApprovalEndedError(
        f"Approval {approval.approval_id} is {approval.state}{_denial(approval)}.",
        approval_id=approval.approval_id,
        state=approval.state.value,
    )


def _denial(approval: ApprovalInfo) -> str:
    """Return the approver and the reason of a denial, or nothing."""
    for decision in approval.decisions:
        if not decision.granted:
            return f" by {decision.principal}: {decision.comment}"
    return ""
