# SPDX-License-Identifier: MIT
"""
Approval state machine: legal transitions and who may cause them.

Every function gives the approval after a step, or the very same object where the step
was made before: a repeated request gets its result.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from hsm_core.errors import (
    AccessDeniedError,
    ConflictError,
    InputSizeError,
    InvalidInputError,
)
from hsm_core.identities import identity, same_person
from hsm_core.model import (
    Approval,
    ApprovalDecision,
    ApprovalDemand,
    ApprovalState,
    Role,
)

_APPROVAL_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MOST_SECONDS: Final = 366 * 24 * 3600
_MOST_PEOPLE: Final = 100
_MOST_USES: Final = 1_000_000
MOST_DEMANDS: Final = 16
"""Maximum number of demands of one approval; its record has no space for more."""

_S: Final = ApprovalState
MOVES: Final[dict[ApprovalState, frozenset[ApprovalState]]] = {
    _S.PENDING: frozenset({_S.GRANTED, _S.DENIED, _S.CANCELLED, _S.EXPIRED}),
    _S.GRANTED: frozenset(
        {_S.PENDING, _S.RESERVED, _S.DENIED, _S.CANCELLED, _S.EXPIRED}
    ),
    _S.RESERVED: frozenset({_S.GRANTED, _S.CONSUMED}),
    _S.CONSUMED: frozenset(),
    _S.DENIED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.EXPIRED: frozenset(),
}
"""Legal state transitions of an approval."""

_OPERATION_ID: Final = re.compile(r"[0-9a-z][0-9a-z-]{0,63}")
_LINE: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f]{0,256}")


def are_one(
    one: tuple[str, str], other: tuple[str, str], *, distinct_certificates: bool
) -> bool:
    """
    Return whether two may be one person.

    Args:
        one: Principal, and fingerprint of the client certificate or empty.

        other: The same.

        distinct_certificates: Whether a certificate is one person's.
    """
    same_certificate = bool(one[1]) and one[1] == other[1]
    return same_person(one[0], other[0]) or (distinct_certificates and same_certificate)


def may_serve(demands: Iterable[ApprovalDemand], roles: Iterable[Role]) -> bool:
    """Return whether somebody with these roles can help to meet one of the demands."""
    held = frozenset(roles)
    return any(_has_role(demand, held) for demand in demands)


def missing(
    demands: Sequence[ApprovalDemand],
    decisions: Sequence[ApprovalDecision],
    *,
    distinct_certificates: bool = True,
) -> tuple[str, ...]:
    """Return what is still needed, in words, each once; nothing if all is met."""
    people = _people(decisions, distinct_certificates=distinct_certificates)
    found = [text for demand in demands for text in _missing_of(demand, people)]
    return tuple(dict.fromkeys(found))


def _people(
    decisions: Sequence[ApprovalDecision], *, distinct_certificates: bool
) -> list[ApprovalDecision]:
    found: list[ApprovalDecision] = []
    for decision in decisions:
        who = decision.principal, decision.certificate_sha256
        known = any(
            are_one(
                who,
                (other.principal, other.certificate_sha256),
                distinct_certificates=distinct_certificates,
            )
            for other in found
        )
        if decision.counts and not known:
            found.append(decision)
    return found


def _missing_of(
    demand: ApprovalDemand, people: Sequence[ApprovalDecision]
) -> list[str]:
    suited = [
        person
        for person in people
        if _has_role(demand, frozenset(person.roles))
        and (not demand.signed or person.signature)
    ]
    signed = ", signed" if demand.signed else ""
    found = []
    if len(suited) < demand.quorum:
        more = demand.quorum - len(suited)
        people_or_roles = (
            f"of {' or '.join(demand.roles)}"
            if demand.roles
            else ("person" if more == 1 else "people")
        )
        found.append(f"{more} more {people_or_roles}{signed}")
    for role in _unfilled(demand.distinct_roles, suited):
        found.append(f"1 more of {role}{signed}")
    return found


def _has_role(demand: ApprovalDemand, held: frozenset[Role]) -> bool:
    return not demand.roles or not held.isdisjoint(demand.roles)


def _unfilled(
    roles: Sequence[Role], people: Sequence[ApprovalDecision]
) -> tuple[Role, ...]:
    """Return the roles for which nobody of their own is left, as few as can be."""
    holder: dict[int, int] = {}  # place of a person: place of the role they fill

    def fill(place: int, tried: set[int]) -> bool:
        for number, person in enumerate(people):
            if number in tried or roles[place] not in person.roles:
                continue
            tried.add(number)
            if number not in holder or fill(holder[number], tried):
                holder[number] = place
                return True
        return False

    return tuple(role for place, role in enumerate(roles) if not fill(place, set()))


def is_approval_id(text: str) -> bool:
    """Return whether *text* is a UUID in lower-case canonical form (RFC 9562)."""
    return _APPROVAL_ID.fullmatch(text) is not None


def check_new(approval: Approval) -> None:
    """
    Check the approval that a request begins with.

    Raises:
        InvalidInputError: A field of it can't be one.
    """
    if not is_approval_id(approval.approval_id):
        raise InvalidInputError(
            "approval_id must be a UUID in lower-case canonical form.",
            field="approval_id",
        )
    if not _DIGEST.fullmatch(approval.digest):
        raise InvalidInputError("digest must be 64 hex digits.", field="digest")
    if not identity(approval.requester):
        raise InvalidInputError("requester must not be empty.", field="requester")
    _check_number("demands", len(approval.demands), 1, MOST_DEMANDS, "demands")
    seconds = (approval.expires_at - approval.created_at) // 1_000_000
    _check_number("seconds", seconds, 1, _MOST_SECONDS, "seconds")
    for demand in approval.demands:
        # Records that a program has built were checked by nobody.
        _check_number("quorum", demand.quorum, 1, _MOST_PEOPLE, "people")
        _check_number("uses", demand.uses, 1, _MOST_USES, "uses")
        _check_number("seconds", demand.seconds, 1, _MOST_SECONDS, "seconds")


def _check_number(
    field: str, actual: int, minimum: int, maximum: int, unit: str
) -> None:
    if not minimum <= actual <= maximum:
        raise InputSizeError(
            field, actual=actual, minimum=minimum, maximum=maximum, unit=unit
        )


def check_move(before: ApprovalState, after: ApprovalState) -> None:
    """
    Check one move of an approval.

    Raises:
        ConflictError: The move is not legal.
    """
    if after not in MOVES[before]:
        raise _illegal(before, after)


def _illegal(before: ApprovalState, after: ApprovalState) -> ConflictError:
    return ConflictError(
        f"The approval is {before} and can't become {after}.",
        state=before.value,
        wanted=after.value,
    )


def decided(
    approval: Approval,
    decision: ApprovalDecision,
    *,
    distinct_certificates: bool = True,
) -> Approval:
    """
    Return an approval with one more decision.

    Repeating a decision changes nothing. The approval is granted when all demands are
    met, and denied by one denial. More people may approve after it was granted.

    Raises:
        AccessDeniedError: The approver is the requester, used the certificate of
            another approver, or has none of the required roles.
        ConflictError: They decided otherwise before, or it is closed.
        InvalidInputError: The comment is too long, or no line.
    """
    who = decision.principal, decision.certificate_sha256
    asked = approval.requester, approval.certificate_sha256
    if are_one(who, asked, distinct_certificates=distinct_certificates):
        raise AccessDeniedError("You can't decide on your own request.")
    for other in approval.decisions:
        if other.withdrawn_at:
            continue
        if same_person(other.principal, decision.principal):
            if other.granted is decision.granted:
                return approval
            raise ConflictError(
                "You already decided on this request. Withdraw your approval before "
                f"you decide otherwise. The approval is {approval.state}.",
                state=approval.state.value,
            )
        others = other.principal, other.certificate_sha256
        if are_one(who, others, distinct_certificates=distinct_certificates):
            raise AccessDeniedError(
                "Another approver already used this client certificate."
            )
    if not may_serve(approval.demands, decision.roles):
        raise AccessDeniedError("None of your roles can decide on this request.")
    if not _LINE.fullmatch(decision.comment):
        raise InvalidInputError(
            "comment must be at most 256 characters without control characters.",
            field="comment",
        )
    return _with(approval, decision, distinct_certificates)


def _with(
    approval: Approval, decision: ApprovalDecision, distinct_certificates: bool
) -> Approval:
    # Withdrawn decisions are in the audit log; kept here, the record would only grow.
    others = (
        d
        for d in approval.decisions
        if not (d.withdrawn_at and same_person(d.principal, decision.principal))
    )
    decisions = (*others, decision)
    if not decision.granted:
        return _moved(approval, _S.DENIED, decisions=decisions, closed_at=decision.at)
    # One that is reserved becomes granted only when its operation gives it back.
    if approval.state not in {_S.PENDING, _S.GRANTED}:
        raise _illegal(approval.state, _S.GRANTED)
    short = missing(
        approval.demands, decisions, distinct_certificates=distinct_certificates
    )
    state = approval.state if short else _S.GRANTED
    return _changed(approval, state=state, decisions=decisions)


def withdrawn(
    approval: Approval,
    principal: str,
    now: int,
    *,
    distinct_certificates: bool = True,
) -> Approval:
    """
    Return an approval without a person's decision; they may decide again.

    Raises:
        AccessDeniedError: They have not approved it.
        ConflictError: It is reserved or closed.
    """
    own = [
        d
        for d in approval.decisions
        if d.granted and same_person(d.principal, principal)
    ]
    if not own:
        raise AccessDeniedError("You have not approved this request.")
    if not any(d.counts for d in own):
        return approval
    if approval.state not in {_S.PENDING, _S.GRANTED}:
        raise ConflictError(
            f"The approval is {approval.state}; it can no longer be withdrawn.",
            state=approval.state.value,
        )
    decisions = tuple(
        msgspec.structs.replace(d, withdrawn_at=now) if d in own and d.counts else d
        for d in approval.decisions
    )
    short = missing(
        approval.demands, decisions, distinct_certificates=distinct_certificates
    )
    state = _S.PENDING if short else approval.state
    return _changed(approval, state=state, decisions=decisions)


def reviewed(
    approval: Approval,
    demands: Sequence[ApprovalDemand],
    is_trusted: Callable[[ApprovalDecision], bool],
    now: int,
    *,
    distinct_certificates: bool = True,
) -> Approval:
    """
    Return an approval under the current policy, before it is used.

    New demands of the policy are added. Decisions of approvers who have lost the right
    to decide no longer count; they may decide again. Demands are never dropped.

    Raises:
        ConflictError: The policy changed too often after the request was opened.
    """
    if approval.state not in {_S.PENDING, _S.GRANTED}:
        return approval
    new = tuple(d for d in dict.fromkeys(demands) if d not in approval.demands)
    decisions = tuple(
        d
        if not d.counts or is_trusted(d)
        else msgspec.structs.replace(d, withdrawn_at=now)
        for d in approval.decisions
    )
    asked = (*approval.demands, *new)
    if len(asked) > MOST_DEMANDS:
        raise ConflictError(
            "The policy changed too often after this request was opened. Cancel it "
            "and open a new one."
        )
    short = missing(asked, decisions, distinct_certificates=distinct_certificates)
    state = _S.PENDING if short else approval.state
    if (asked, decisions, state) == (
        approval.demands,
        approval.decisions,
        approval.state,
    ):
        return approval
    latest = [approval.created_at + d.seconds * 1_000_000 for d in new]
    return _changed(
        approval,
        state=state,
        demands=asked,
        decisions=decisions,
        expires_at=min([approval.expires_at, *latest]),
        uses_left=min([approval.uses_left, *(d.uses for d in new)]),
    )


def reserved(
    approval: Approval,
    operation_id: str,
    digest: str,
    requester: str,
    log_id: str = "",
) -> Approval:
    """
    Return an approval reserved for one operation.

    An operation can't reserve it twice.

    Args:
        approval: Granted.

        operation_id: The operation.

        digest: What an approval of it binds.

        requester: Who executes it.

        log_id: Audit log of the node of a cluster that executes it.

    Raises:
        AccessDeniedError: It is for another operation, or for another person.
        ConflictError: It is not granted.
        InvalidInputError: *operation_id* can't be one.
    """
    if not _OPERATION_ID.fullmatch(operation_id):
        raise InvalidInputError(
            "operation_id must be 1 to 64 lowercase letters, digits and hyphens.",
            field="operation_id",
        )
    if requester != approval.requester:
        raise AccessDeniedError("Only the requester can use an approval.")
    if not hmac.compare_digest(digest.encode(), approval.digest.encode()):
        raise AccessDeniedError("The approval was granted for a different operation.")
    return _moved(approval, _S.RESERVED, operation_id=operation_id, log_id=log_id)


def released(approval: Approval, operation_id: str) -> Approval:
    """
    Return a reserved approval that its operation releases unused.

    Raises:
        ConflictError: It is reserved for another operation, or consumed.
    """
    if approval.state is _S.GRANTED:
        return approval
    if approval.state is not _S.RESERVED:
        raise _illegal(approval.state, _S.GRANTED)
    _check_operation(approval, operation_id)
    return _moved(approval, _S.GRANTED, operation_id="", log_id="")


def consumed(approval: Approval, operation_id: str, now: int) -> Approval:
    """
    Return an approval consumed by its operation; granted while uses are left.

    Raises:
        ConflictError: It is not reserved for this operation.
    """
    done = {_S.CONSUMED, _S.GRANTED}
    if approval.state in done and approval.operation_id == operation_id:
        return approval
    if approval.state is not _S.RESERVED:
        raise _illegal(approval.state, _S.CONSUMED)
    _check_operation(approval, operation_id)
    left = approval.uses_left - 1
    if left > 0:
        return _moved(approval, _S.GRANTED, uses_left=left)
    return _moved(approval, _S.CONSUMED, uses_left=0, closed_at=now)


def _check_operation(approval: Approval, operation_id: str) -> None:
    if approval.operation_id != operation_id:
        raise ConflictError(
            f"The approval is {approval.state} for a different operation.",
            state=approval.state.value,
        )


def cancelled(approval: Approval, requester: str, now: int) -> Approval:
    """
    Return an approval cancelled by its requester.

    Raises:
        AccessDeniedError: The caller is not the requester.
        ConflictError: It is reserved or closed.
    """
    if not same_person(requester, approval.requester):
        raise AccessDeniedError("Only the requester can cancel an approval.")
    if approval.state is _S.CANCELLED:
        return approval
    return _moved(approval, _S.CANCELLED, closed_at=now)


def expired(approval: Approval, now: int) -> Approval:
    """Return an approval as of now: expired after its expiry time."""
    if _S.EXPIRED in MOVES[approval.state] and now >= approval.expires_at:
        return _moved(approval, _S.EXPIRED, closed_at=now)
    return approval


def _moved(approval: Approval, state: ApprovalState, **facts: object) -> Approval:
    check_move(approval.state, state)
    return _changed(approval, state=state, **facts)


def _changed(approval: Approval, **facts: object) -> Approval:
    return msgspec.structs.replace(
        approval, generation=approval.generation + 1, **facts
    )
