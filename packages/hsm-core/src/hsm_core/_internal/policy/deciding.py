# SPDX-License-Identifier: MIT
"""The one decision: for a request as it comes, and for one of which less is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hsm_core._internal.policy.changes import decide_update
from hsm_core._internal.policy.engine import RuleEngine
from hsm_core._internal.policy.outcomes import joined
from hsm_core._internal.policy.sides import StatedFacts
from hsm_core.model import Caller
from hsm_core.operations import Operation, UpdateKey
from hsm_core.protocols import Decision, KeyFacts, PolicyEngine


def decide_on(
    engine: PolicyEngine,
    operation: Operation[Any],
    caller: Caller,
    key: KeyFacts | None,
    at: int,
) -> Decision:
    """Decide on an operation because of one of its keys, or without any."""

    def decide(operation: Operation[Any], key: KeyFacts) -> Decision:
        return engine.decide(operation, caller, key, at=at)

    if isinstance(operation, UpdateKey) and key is not None:
        return decide_update(decide, operation, key, freed=engine.freed)
    return engine.decide(operation, caller, key, at=at)


def decide_as_asked(
    engine: RuleEngine,
    asked: StatedFacts,
    caller: Caller,
    keys: Sequence[KeyFacts | None],
    at: int,
) -> Decision:
    """
    Decide as `decide_on` does, once for each key, on what is known of a request.

    Args:
        engine: The policy.

        asked: What the request says.

        caller: Who asks.

        keys: At least one: the key that it is about or None, then those that it names
            besides.

        at: When, in microseconds since 1970.
    """
    decisions = []
    for key in keys:
        if asked.kind == UpdateKey.__name__ and key is not None:
            change = UpdateKey(
                key_id=key.key_id, name=asked.name, owner=asked.owner, tags=asked.tags
            )
            decision = decide_on(engine, change, caller, key, at)
        else:
            decision = engine.decide_asked(asked, caller, key, at)
        if not decision.allowed:
            return decision
        decisions.append(decision)
    return joined(decisions)
