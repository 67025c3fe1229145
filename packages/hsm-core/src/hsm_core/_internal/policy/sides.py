# SPDX-License-Identifier: MIT
"""
The keys that a rule may be about in one request: one that is there, one to be made.

Who asks to make a key states its facts, and who asks to change them states new ones:
a rule that holds for either side holds for the request.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from hsm_core._policies.operations import MAKING
from hsm_core.algorithms import ALGORITHMS, Algorithm
from hsm_core.model import Caller, KeyState
from hsm_core.operations import Operation
from hsm_core.protocols import KeyFacts

__all__ = ["key_to_be_made", "sides_of"]

_CHANGING = "UpdateKey"


def sides_of(
    operation: Operation[Any], caller: Caller, key: KeyFacts | None
) -> tuple[KeyFacts, ...]:
    """Return the facts of every key that rules may be about."""
    kind = type(operation).__name__
    if kind in MAKING:
        made = key_to_be_made(
            algorithm=getattr(operation, "algorithm", ""),
            usages=[usage.value for usage in getattr(operation, "usages", ())],
            name=getattr(operation, "name", ""),
            owner=getattr(operation, "owner", "") or caller.principal,
            tags=getattr(operation, "tags", ()),
        )
        return (made,) if key is None else (made, key)
    if key is None:
        return ()
    if kind == _CHANGING:
        return (key, _changed(operation, key))
    return (key,)


def key_to_be_made(
    *,
    algorithm: str,
    usages: Collection[str],
    name: str,
    owner: str,
    tags: Collection[str],
) -> KeyFacts:
    """Return the facts of a key as it will be."""
    return KeyFacts(
        key_id="",
        algorithm=algorithm,
        state=KeyState.ACTIVE,
        name=name,
        owner=owner,
        tags=frozenset(tags),
        usages=frozenset(usages) or _default_usages(algorithm),
    )


def _changed(operation: Operation[Any], key: KeyFacts) -> KeyFacts:
    name, owner, tags = (
        getattr(operation, field, None) for field in ("name", "owner", "tags")
    )
    return replace(
        key,
        name=key.name if name is None else name,
        owner=key.owner if owner is None else owner,
        tags=key.tags if tags is None else frozenset(tags),
    )


def _default_usages(algorithm: str) -> frozenset[str]:
    try:
        return frozenset(
            u.value for u in ALGORITHMS[Algorithm(algorithm)].default_usages
        )
    except ValueError:
        return frozenset()  # It could not be resolved, which is refused right after.
