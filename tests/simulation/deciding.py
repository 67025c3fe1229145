# SPDX-License-Identifier: MIT
"""What must become of Approve, Deny and CancelApproval, said a second time."""

from __future__ import annotations

from typing import Any

from hsm_core import operations as ops
from hsm_core.model import ApprovalState, Caller, Role
from hsm_core.operations import Operation
from tests.simulation.consents import Consent, Consents
from tests.simulation.law import Refusal, refused
from tests.simulation.rules import person


def decided(
    consents: Consents, operation: Operation[Any], caller: Caller, *, in_use: bool
) -> list[Refusal | None]:
    """
    Return what a step of an approval may lead to; None is an answer.

    Args:
        consents: All that are known.

        operation: Approve, Deny or CancelApproval.

        caller: Who says so.

        in_use: Whether an operation has the approval just now.
    """
    consent = consents.by_id.get(getattr(operation, "approval_id", ""))
    if isinstance(operation, ops.CancelApproval):
        found = _cancelled(consent, caller)
    else:
        found = _said(consent, caller, granted=isinstance(operation, ops.Approve))
    if found is not None or consent is None:
        return [found]
    if _is_said_again(consent, operation, caller):
        return [None]
    options: list[Refusal | None] = []
    if not consent.is_open or consents.may_have_expired(consent) or in_use:
        options.append(refused("conflict"))
    if consent.is_open and not consents.has_expired(consent) and not in_use:
        options.append(None)
    return options


def note(consent: Consent, operation: Operation[Any], caller: Caller) -> bool:
    """Take a step into account that was answered; return whether it is a new one."""
    if _is_said_again(consent, operation, caller):
        return False
    if isinstance(operation, ops.CancelApproval):
        consent.cancel()
    else:
        consent.say(caller, granted=isinstance(operation, ops.Approve))
    return True


def _is_said_again(consent: Consent, operation: Operation[Any], caller: Caller) -> bool:
    if isinstance(operation, ops.CancelApproval):
        return consent.state is ApprovalState.CANCELLED
    said = consent.said.get(person(caller.principal))
    return said is not None and said.granted is isinstance(operation, ops.Approve)


def _said(consent: Consent | None, caller: Caller, *, granted: bool) -> Refusal | None:
    if caller.roles <= {Role.SERVICE}:
        return refused("access_denied")
    if consent is None:
        return refused("approval_not_found")
    who = person(caller.principal)
    if who == person(consent.requester):
        return refused("access_denied")
    if who in consent.said:
        again = consent.said[who].granted is granted
        return None if again else refused("conflict")
    serves = any(not d.roles or d.roles & caller.roles for d in consent.demands)
    return None if serves else refused("access_denied")


def _cancelled(consent: Consent | None, caller: Caller) -> Refusal | None:
    if consent is None:
        return refused("approval_not_found")
    if person(caller.principal) == person(consent.requester):
        return None
    if caller.roles <= {Role.SERVICE}:
        return refused("approval_not_found")
    return refused("access_denied")
