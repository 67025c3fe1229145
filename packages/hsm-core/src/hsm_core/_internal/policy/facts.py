# SPDX-License-Identifier: MIT
"""Facts of a request that a rule matches, and names of decisions in the audit log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import cache
from typing import Any, Final

import msgspec

from hsm_core._policies.rules import MAKING
from hsm_core.algorithms import ALGORITHMS, Algorithm
from hsm_core.errors import InvalidInputError
from hsm_core.identities import SYSTEM_PREFIX
from hsm_core.model import ApprovalDemand, Caller, KeyState, Parameters, PolicyOutcome
from hsm_core.operations import Operation, UpdateKey
from hsm_core.protocols import Decision, KeyFacts

_CHANGING = "UpdateKey"


class StatedFacts(msgspec.Struct, frozen=True, kw_only=True):
    """
    Key facts stated by a request that creates or changes a key; None if not stated.

    Attributes:
        kind: Name of the operation.
    """

    kind: str
    algorithm: str | None = None
    usages: tuple[str, ...] | None = None
    name: str | None = None
    owner: str | None = None
    tags: tuple[str, ...] | None = None


def asked_of(operation: Operation[Any]) -> StatedFacts:
    """Return the key facts that an operation states."""
    kind = type(operation).__name__
    if kind not in MAKING and kind != _CHANGING:
        return _plain(kind)
    usages = getattr(operation, "usages", None)
    return StatedFacts(
        kind=kind,
        algorithm=getattr(operation, "algorithm", None),
        usages=None if usages is None else tuple(usage.value for usage in usages),
        name=getattr(operation, "name", None),
        owner=getattr(operation, "owner", None),
        tags=getattr(operation, "tags", None),
    )


@cache
def _plain(kind: str) -> StatedFacts:
    return StatedFacts(kind=kind)


def sides_as_asked(
    asked: StatedFacts, caller: Caller, key: KeyFacts | None
) -> tuple[KeyFacts, ...]:
    """Return the facts of every key that rules may be about."""
    present = () if key is None else (key,)
    if asked.kind in MAKING:
        return (_made(asked, caller), *present)
    if key is not None and asked.kind == _CHANGING:
        return (key, facts_after(asked, key))
    return present


def _made(asked: StatedFacts, caller: Caller) -> KeyFacts:
    algorithm = asked.algorithm or ""
    return KeyFacts(
        key_id="",
        algorithm=algorithm,
        state=KeyState.ACTIVE,
        name=asked.name or "",
        owner=asked.owner or caller.principal,
        tags=frozenset(asked.tags or ()),
        usages=frozenset(asked.usages or ()) or _default_usages(algorithm),
    )


def facts_after(asked: StatedFacts | UpdateKey, key: KeyFacts) -> KeyFacts:
    """Return what rules may match of a key when it has been updated."""
    return msgspec.structs.replace(
        key,
        name=key.name if asked.name is None else asked.name,
        owner=key.owner if asked.owner is None else asked.owner,
        tags=key.tags if asked.tags is None else frozenset(asked.tags),
    )


def _default_usages(algorithm: str) -> frozenset[str]:
    try:
        row = ALGORITHMS[Algorithm(algorithm)]
    except ValueError:
        return frozenset()  # It could not be resolved, which is refused right after.
    return frozenset(usage.value for usage in row.default_usages)


CLOCK: Final = "clock:"
"""Before the name of a rule with a time window, while nobody knows the time."""

_APPROVAL: Final = "approval:"
_ALLOWING: Final = ("role:", "allow:", SYSTEM_PREFIX)


def asking_rule(demands: Iterable[ApprovalDemand]) -> str:
    """Return what is recorded where rules ask for approvals."""
    return _APPROVAL + "+".join(sorted({demand.rule for demand in demands}))


def outcome_of_rule(rule: str) -> PolicyOutcome:
    """Return what a decision was, by the rule that was recorded."""
    if rule.startswith(_APPROVAL):
        return PolicyOutcome.APPROVAL
    return PolicyOutcome.ALLOW if rule.startswith(_ALLOWING) else PolicyOutcome.DENY


def joined(decisions: Sequence[Decision]) -> Decision:
    """
    Return what decisions about several keys of one operation come to.

    Args:
        decisions: At least one; all allow.
    """
    # By what they say: while a refused file is cut down to, two may have one name.
    demands = tuple(dict.fromkeys(demand for d in decisions for demand in d.approvals))
    if not demands:
        return decisions[0]
    return msgspec.structs.replace(
        decisions[0], approvals=demands, rule=asking_rule(demands)
    )


class SystemPrincipal(StrEnum):
    """Names under which the HSM itself acts."""

    DESTRUCTION = "system.destruction"
    HEALTH = "system.health"
    RETENTION = "system.retention"
    ROTATION = "system.rotation"


SYSTEM_GRANTS: Final[dict[str, frozenset[str]]] = {
    SystemPrincipal.DESTRUCTION: frozenset({"CompleteDestruction"}),
    SystemPrincipal.HEALTH: frozenset({"Status"}),
    SystemPrincipal.RETENTION: frozenset(
        {"AllowPurges", "CancelPurge", "PurgeVersion", "SchedulePurge"}
    ),
    SystemPrincipal.ROTATION: frozenset({"RotateKey"}),
}
"""Operations granted to each system caller; approval rules apply to them too."""


def system_caller(principal: SystemPrincipal) -> Caller:
    """Return the caller that a background job or health check is."""
    return Caller(principal=principal.value, roles=frozenset())


_SUBJECT: Final = "caller_certificate_subject"
_NAMES: Final = "caller_certificate_names"
_SINGLE_USE: Final = "caller_single_use"
_LEFT_OUT: Final = "caller_left_out"
_NAMES_FIELD: Final = "certificate_names"
_NAMES_BYTES: Final = 16_384
"""Longest alternative names of a caller together, so that every record has room."""


def check_recordable(caller: Caller) -> None:
    """
    Check that a record can show every fact of a caller.

    Raises:
        InvalidInputError: The alternative names of the certificate are too long.
    """
    if not _fit(caller.certificate_names):
        raise InvalidInputError(
            f"certificate_names: the alternative names of the client certificate must "
            f"have at most {_NAMES_BYTES} bytes together. Use a certificate with fewer "
            "or shorter names.",
            field=_NAMES_FIELD,
        )


def _fit(names: Sequence[str]) -> bool:
    sizes = (len(name.encode("utf-8", "surrogatepass")) for name in names)
    return sum(sizes) <= _NAMES_BYTES


def audited_certificate(caller: Caller) -> Parameters:
    """
    Return the audit parameters for the caller's credentials.

    Alternative names that are too long are left out, and that is said.
    """
    found: Parameters = {}
    if caller.certificate_subject:
        found[_SUBJECT] = caller.certificate_subject
    if not _fit(caller.certificate_names):
        found[_LEFT_OUT] = [_NAMES_FIELD]
    elif caller.certificate_names:
        found[_NAMES] = list(caller.certificate_names)
    if caller.single_use:
        found[_SINGLE_USE] = 1
    return found


def certificate_facts(parameters: Parameters) -> dict[str, Any]:
    """Return the same as fields of a `Caller` again."""
    subject, names = parameters.get(_SUBJECT, ""), parameters.get(_NAMES, [])
    found: dict[str, Any] = {}
    if isinstance(subject, str):
        found["certificate_subject"] = subject
    if isinstance(names, list):
        found["certificate_names"] = tuple(names)
    found["single_use"] = parameters.get(_SINGLE_USE) == 1
    return found
