# SPDX-License-Identifier: MIT
"""
The keys that a rule may be about in one request: one that is there, one to be made.

Who asks to make a key states its facts, and who asks to change them states new ones:
a rule that holds for either side holds for the request.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from hsm_core._policies.operations import MAKING
from hsm_core.algorithms import ALGORITHMS, Algorithm
from hsm_core.model import Caller, KeyState
from hsm_core.operations import Operation
from hsm_core.protocols import KeyFacts

_CHANGING = "UpdateKey"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedFacts:
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
        return (key, _changed(asked, key))
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


def _changed(asked: StatedFacts, key: KeyFacts) -> KeyFacts:
    return replace(
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
