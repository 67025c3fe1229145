# SPDX-License-Identifier: MIT
"""
Policy decisions about changes of key metadata.

Whoever may change tags and owner of a key must not free it from a rule that way, nor
give themselves more rights with it than they have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

import msgspec

from hsm_core._internal.policy.outcomes import joined
from hsm_core.model import ApprovalDemand
from hsm_core.operations import OPERATIONS, Effect, Operation, UpdateKey
from hsm_core.protocols import Decision, KeyFacts

UPDATE_GIVES: Final = "update-gives:"
"""Prefix of an operation's name in place of a rule, for a change that grants rights."""

Decide: TypeAlias = Callable[[Operation[Any], KeyFacts], Decision]
"""Decides one caller's operation, as `PolicyEngine` does."""

Freed: TypeAlias = Callable[[KeyFacts, KeyFacts], Sequence[ApprovalDemand]]
"""
Returns the rules that would no longer apply to others, as `PolicyEngine.freed` does.
"""


def _nothing(before: KeyFacts, after: KeyFacts) -> Sequence[ApprovalDemand]:
    return ()


def facts_after(operation: UpdateKey, key: KeyFacts) -> KeyFacts:
    """Return what rules may match of a key when it has been updated."""
    return replace(
        key,
        name=key.name if operation.name is None else operation.name,
        owner=key.owner if operation.owner is None else operation.owner,
        tags=key.tags if operation.tags is None else frozenset(operation.tags),
    )


def decide_update(
    decide: Decide,
    operation: UpdateKey,
    key: KeyFacts,
    *,
    freed: Freed = _nothing,
) -> Decision:
    """
    Decide on an update by the facts that are and those that would be.

    - Both must allow the update itself, and all approvals that they ask for are asked.
    - What any operation on the key needs approvals for now, and would not any more, is
      asked for too: the rules by which two people must agree to a destruction hold for
      taking off the tag that they go by. *freed* says so of all whom a rule may
      concern, whenever it holds, and not of this caller at this time alone.
    - Nobody may do it to whom any operation on the key is denied now, and would be
      allowed after it.
    """
    after = facts_after(operation, key)
    first = decide(operation, key)
    if not first.allowed or after == key:
        return first
    then = decide(operation, after)
    if not then.allowed:
        return replace(then, may_describe=first.may_describe)
    spared = list(freed(key, after))
    for other in _others(key):
        now, would = decide(other, key), decide(other, after)
        if would.allowed and not now.allowed:
            return replace(
                first, allowed=False, rule=f"{UPDATE_GIVES}{type(other).__name__}"
            )
        if now.allowed:
            spared += (d for d in now.approvals if d not in would.approvals)
    return joined([first, then, replace(first, approvals=tuple(spared))])


_CONCERNED: Final = tuple(
    operation
    for operation in OPERATIONS
    if operation is not UpdateKey and operation.effect is not Effect.RECOVERY
    if operation.other_keys
    or any(f.name == "key_id" and f.required for f in msgspec.structs.fields(operation))
)


def _others(key: KeyFacts) -> list[Operation[Any]]:
    """Return every other operation that names a key, as far as rules look at it."""
    found = []
    for kind in _CONCERNED:
        values: dict[str, Any] = {
            field.name: b"" for field in msgspec.structs.fields(kind) if field.required
        }
        known = {"key_id": key.key_id, "algorithm": key.algorithm}
        values |= {name: known[name] for name in values.keys() & known.keys()}
        found.append(kind(**values))
    return found
