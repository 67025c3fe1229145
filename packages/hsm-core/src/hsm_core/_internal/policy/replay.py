# SPDX-License-Identifier: MIT
"""Policy replay: decisions of another policy for recorded requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from hsm_core import wire
from hsm_core._internal.lib.certificate_facts import certificate_facts
from hsm_core._internal.policy.deciding import decide_as_asked
from hsm_core._internal.policy.engine import RuleEngine
from hsm_core._internal.policy.outcomes import outcome_of_rule
from hsm_core._internal.policy.sides import StatedFacts
from hsm_core._policies.operations import KNOWN_OPERATIONS
from hsm_core.model import (
    ApprovalDemand,
    AuditedCaller,
    AuditedKey,
    AuditEvent,
    Caller,
    KeyState,
    Parameters,
    Phase,
    Role,
)
from hsm_core.operations import PolicyChange
from hsm_core.protocols import Decision, KeyFacts

OTHER_FACTS: Final = ("algorithm", "name", "owner", "tags", "usages")
"""Recorded facts of a further key, named ``<field without _id>_<fact>``."""

_ROLES: Final = {role.value: role for role in Role}


def was_decided(event: AuditEvent) -> bool:
    """
    Return whether a record is that of a request on which the policy has decided.

    A change has its decision in the intent record; the outcome has no new one.
    """
    return (
        event.phase is not Phase.OUTCOME
        and event.caller is not None
        and bool(event.rule)
        and event.kind in KNOWN_OPERATIONS
    )


def change_of(event: AuditEvent, engine: RuleEngine) -> PolicyChange | None:
    """
    Return how the outcome of a recorded request would change, or None.

    Other people, more of them, or for another time, are another outcome; rules that ask
    for the same under other names are not.
    """
    if not was_decided(event) or event.caller is None:
        return None
    decision = decision_on(event, event.caller, engine)
    before, after = outcome_of_rule(event.rule), outcome_of_rule(decision.rule)
    if before is after and _asked_for(event.demands) == _asked_for(decision.approvals):
        return None
    return PolicyChange(
        seq=event.seq,
        time=event.time,
        principal=event.caller.principal,
        operation=event.kind,
        key_id=event.key_id,
        before=before,
        before_rule=event.rule,
        after=after,
        after_rule=decision.rule,
        before_demands=event.demands,
        after_demands=decision.approvals,
    )


def _asked_for(demands: tuple[ApprovalDemand, ...]) -> frozenset[bytes]:
    """Return what is asked for, whichever rules ask."""
    return frozenset(
        wire.encode_packed(msgspec.structs.replace(demand, rule=""))
        for demand in demands
    )


def decision_on(event: AuditEvent, who: AuditedCaller, engine: RuleEngine) -> Decision:
    """Decide again on a recorded request, as far as its record tells of it."""
    caller = Caller(
        principal=who.principal,
        roles=frozenset(_ROLES[name] for name in who.roles if name in _ROLES),
        credential_id=who.credential_id,
        certificate_sha256=who.certificate_sha256,
        **certificate_facts(event.parameters),
        source_address=who.source_address,
    )
    keys = [_facts(event.key), *_others(event.parameters)]
    return decide_as_asked(engine, _asked(event), caller, keys, event.time)


def _asked(event: AuditEvent) -> StatedFacts:
    found = event.parameters
    return StatedFacts(
        kind=event.kind,
        algorithm=_text(found, "algorithm"),
        usages=_list(found, "usages"),
        name=_text(found, "name"),
        owner=_text(found, "owner"),
        tags=_list(found, "tags"),
    )


def _facts(key: AuditedKey | None) -> KeyFacts | None:
    if key is None:
        return None
    return KeyFacts(
        key_id="",
        algorithm=key.algorithm,
        state=KeyState(key.state) if key.state in set(KeyState) else KeyState.ACTIVE,
        name=key.name,
        owner=key.owner,
        tags=frozenset(key.tags),
        usages=frozenset(key.usages),
    )


def _others(parameters: Parameters) -> list[KeyFacts]:
    """Return the further keys that a record tells of."""
    found = []
    for name in sorted(parameters):
        stem = name.removesuffix("_key_id")
        if stem == name or f"{stem}_key_algorithm" not in parameters:
            continue
        of = {fact: f"{stem}_key_{fact}" for fact in OTHER_FACTS}
        found.append(
            KeyFacts(
                key_id="",
                algorithm=_text(parameters, of["algorithm"]) or "",
                state=KeyState.ACTIVE,
                name=_text(parameters, of["name"]) or "",
                owner=_text(parameters, of["owner"]) or "",
                tags=frozenset(_list(parameters, of["tags"]) or ()),
                usages=frozenset(_list(parameters, of["usages"]) or ()),
            )
        )
    return found


def _text(parameters: Mapping[str, object], name: str) -> str | None:
    value = parameters.get(name)
    return value if isinstance(value, str) else None


def _list(parameters: Mapping[str, object], name: str) -> tuple[str, ...] | None:
    value = parameters.get(name)
    return tuple(map(str, value)) if isinstance(value, list) else None
