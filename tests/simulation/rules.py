# SPDX-License-Identifier: MIT
"""
Who must agree to what, said a second time: the rules of ``policy.yaml``, and theirs.

What is asked of people here is counted by trying, so that no mistake is made twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Final

import msgspec

from hsm_core import operations as ops
from hsm_core.model import KeyState, Role
from hsm_core.operations import Operation
from tests.simulation.law import Key, Kind

_DAY: Final = 24 * 3600


@dataclass(frozen=True, slots=True)
class Demand:
    """
    What one rule asks for.

    Attributes:
        quorum: How many people.
        roles: Of which each must have one; empty for any.
        distinct: For each of these roles a person of its own.
        seconds: For how long an approval is good.
        uses: How often.
    """

    rule: str
    quorum: int = 1
    roles: frozenset[Role] = frozenset()
    distinct: tuple[Role, ...] = ()
    seconds: int = 3600
    uses: int = 1


@dataclass(frozen=True, slots=True)
class _Rule:
    kinds: frozenset[Kind]
    demand: Demand
    tag: str = ""


RULES: Final = (
    _Rule(
        frozenset({ops.Rollback}),
        Demand("two-for-rollback", quorum=2, seconds=10 * _DAY),
    ),
    _Rule(
        frozenset({ops.DestroyKey}),
        Demand(
            "both-for-end",
            distinct=(Role.OPERATOR, Role.AUDITOR),
            seconds=30 * _DAY,
        ),
    ),
    _Rule(
        frozenset({ops.RotateKey, ops.SuspendKey, ops.ResumeKey}),
        Demand(
            "one-for-prod",
            roles=frozenset({Role.ADMINISTRATOR, Role.OPERATOR}),
            seconds=3 * _DAY,
        ),
        tag="prod",
    ),
    _Rule(
        frozenset({ops.Sign, ops.Encrypt, ops.ComputeMac}),
        Demand("ticket-for-prod", seconds=_DAY, uses=3),
        tag="prod",
    ),
)


PURGE: Final = Demand(
    "retention-purge", distinct=(Role.OPERATOR, Role.AUDITOR), seconds=30 * _DAY
)
"""What the built-in policy asks for before anything is purged."""


def _holds(rule: _Rule, tags: Iterable[str]) -> bool:
    return not rule.tag or rule.tag in tags


def demands_of(operation: Operation[Any], key: Key | None) -> tuple[Demand, ...]:
    """Return all that must be agreed to before an operation on a key."""
    if key is None:
        return ()
    if isinstance(operation, ops.UpdateKey) and operation.tags is not None:
        # Whoever takes a label off needs what its rules ask for.
        return tuple(
            rule.demand
            for rule in RULES
            if _holds(rule, key.tags) and not _holds(rule, operation.tags)
        )
    return tuple(
        rule.demand
        for rule in RULES
        if type(operation) in rule.kinds and _holds(rule, key.tags)
    )


@dataclass(frozen=True, slots=True)
class Bound:
    """
    What an approval is for: one person's request, wholly.

    Attributes:
        sent: The operation with its defaults, as one can compare it.
        version: The one that it names, else the current one.
    """

    requester: str
    kind: str
    sent: tuple[tuple[str, object], ...]
    version: object


def bound(requester: str, operation: Operation[Any], key: Key) -> Bound:
    """Return what an approval of a request binds."""
    facts = msgspec.structs.asdict(operation)
    facts["key_id"] = key.key_id
    if isinstance(operation, ops.DestroyKey):
        facts["waiting_days"] = operation.waiting_days or 0
    if isinstance(operation, ops.ActivateKey) and operation.version is None:
        staged = [v.number for v in key.versions if v.state is KeyState.STAGED]
        facts["version"] = staged[0] if staged else None
    return Bound(
        requester=requester,
        kind=type(operation).__name__,
        sent=tuple(sorted(facts.items())),
        version=facts.get("version") or key.current,
    )


def person(principal: str) -> str:
    """Return who somebody is, whatever the case of their name."""
    return principal.casefold()


@dataclass(frozen=True, slots=True)
class Saying:
    """What one person said."""

    granted: bool
    roles: frozenset[Role]


def are_met(demands: Iterable[Demand], said: dict[str, Saying], requester: str) -> bool:
    """Return whether enough other people agree."""
    people = [
        saying.roles
        for who, saying in said.items()
        if saying.granted and who != person(requester)
    ]
    return all(_is_met(demand, people) for demand in demands)


def _is_met(demand: Demand, people: list[frozenset[Role]]) -> bool:
    suited = [roles for roles in people if not demand.roles or roles & demand.roles]
    if len(suited) < demand.quorum:
        return False
    wanted = demand.distinct
    return any(
        all(role in roles for role, roles in zip(wanted, chosen, strict=True))
        for chosen in permutations(suited, len(wanted))
    )
