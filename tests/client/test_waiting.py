# SPDX-License-Identifier: MIT
"""Waiting for approval: an approved operation is executed once, nothing else is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from hsm_client.waiting import ApprovalEndedError, ApprovalWait, execute_when_approved
from hsm_core.errors import AccessDeniedError, ApprovalRequiredError, UnavailableError
from hsm_core.factory import OpenHSM
from hsm_core.model import ApprovalState
from hsm_core.operations import Approve, CreateKey, DestroyKey, ListKeys
from hsm_core.testing import caller
from tests.client.asking import ID, Asking

_S = ApprovalState


@dataclass
class Time:
    """A clock that goes on by what is waited."""

    seconds: float = 100.0
    pauses: list[float] = field(default_factory=list)

    def pause(self, seconds: float) -> None:
        """Go on."""
        self.pauses.append(seconds)
        self.seconds += seconds

    def approval_wait(self, seconds: float | None = None) -> ApprovalWait:
        """Return a wait with this clock."""
        return ApprovalWait(seconds=seconds, pause=self.pause, now=lambda: self.seconds)


@pytest.fixture
def asking(gateway: OpenHSM) -> Asking:
    """Give an HSM that asks before it destroys keys."""
    hsm = gateway.act_as(caller())
    hsm.execute(CreateKey(algorithm="AES-256-GCM", name="k"))
    return Asking(hsm, kinds=(DestroyKey,))


def destroy(asking: Asking, approval_wait: ApprovalWait) -> str:
    """Destroy the key after waiting for approval; return its state."""
    operation = DestroyKey(key_id="k")
    key = execute_when_approved(
        asking, lambda: asking.execute(operation), approval_wait
    )
    return str(key.state)


def test_agreed(asking: Asking) -> None:
    """The operation is executed once approved, after growing pauses."""
    time = Time()
    asking.steps = [_S.PENDING, _S.PENDING, _S.GRANTED]

    assert "destroyed" == destroy(asking, time.approval_wait())
    assert [0.5, 0.625, 0.78125] == time.pauses


def test_longest_pause(asking: Asking) -> None:
    """However long it takes, a pause is never longer than 15 seconds."""
    time = Time()
    asking.steps = [_S.PENDING] * 40 + [_S.GRANTED]

    destroy(asking, time.approval_wait())

    assert 15 == max(time.pauses)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (_S.CANCELLED, f"Approval {ID} is cancelled."),
        (_S.EXPIRED, f"Approval {ID} is expired."),
        (_S.CONSUMED, f"Approval {ID} is consumed."),
    ],
)
def test_ended(asking: Asking, state: ApprovalState, text: str) -> None:
    """If the request ends otherwise, nothing is executed; the error names the state."""
    asking.steps = [_S.PENDING, state]

    with pytest.raises(ApprovalEndedError) as caught:
        destroy(asking, Time().approval_wait())

    assert (text, state) == (str(caught.value), caught.value.facts["state"])
    assert 1 == sum(isinstance(o, DestroyKey) for o in asking.received)


def test_denied(asking: Asking) -> None:
    """The error of a denial names the approver and the reason."""
    asking._say(granted=False, comment="not before Friday")  # noqa: SLF001

    with pytest.raises(ApprovalEndedError, match="denied by bob: not before Friday"):
        destroy(asking, Time().approval_wait())


def test_nobody_to_wait_for(asking: Asking) -> None:
    """A demand that names no request is told at once."""
    time = Time()

    def attempt() -> None:
        raise ApprovalRequiredError

    with pytest.raises(ApprovalRequiredError):
        execute_when_approved(asking, attempt, time.approval_wait())

    assert ([], []) == (time.pauses, asking.received)


def test_out_of_patience(asking: Asking) -> None:
    """After the maximum wait, approval is still required; the request stays open."""
    time = Time()

    with pytest.raises(ApprovalRequiredError) as caught:
        destroy(asking, time.approval_wait(10))

    assert ID == caught.value.facts["approval_id"]
    assert 110 == time.seconds


def test_server_away(asking: Asking) -> None:
    """A temporarily unavailable server does not end the wait."""
    asking.steps = [UnavailableError("away"), UnavailableError("away"), _S.GRANTED]

    assert "destroyed" == destroy(asking, Time().approval_wait())


def test_other_errors(asking: Asking) -> None:
    """Other errors, such as access denied, end the wait."""
    asking.steps = [AccessDeniedError()]

    with pytest.raises(AccessDeniedError):
        destroy(asking, Time().approval_wait())


def test_granted_and_not_enough(asking: Asking) -> None:
    """A granted request that is still not enough is retried after a pause."""
    time = Time()
    asking.steps = [_S.GRANTED] * 5
    tried: list[float] = []
    notes: list[str] = []
    wait = replace(time.approval_wait(3), notify=notes.append)

    def attempt() -> None:
        tried.append(time.seconds)
        raise asking._required()  # noqa: SLF001

    with pytest.raises(ApprovalRequiredError):
        execute_when_approved(asking, attempt, wait)
    assert 3 < len(tried) == len(set(tried))
    assert [f"waiting for approval {ID} (1 more of Auditor)"] == notes


def test_what_is_no_mutation(asking: Asking) -> None:
    """Operations that are no mutation are done the same way."""
    asking.kinds = (ListKeys,)
    asking.steps = [_S.GRANTED]

    found = execute_when_approved(
        asking, lambda: asking.execute(ListKeys()), Time().approval_wait()
    )

    assert 1 == found.total
    assert not any(isinstance(o, Approve) for o in asking.received)
