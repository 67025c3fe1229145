# SPDX-License-Identifier: MIT
"""
Demands of an approval: check of decisions against demands, a pure function.

Each demand is met by itself; one person may serve several. Who acts under two names, or
with the certificate of another, is one person.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hsm_core.identities import same_person
from hsm_core.model import ApprovalDecision, ApprovalDemand, Role


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
