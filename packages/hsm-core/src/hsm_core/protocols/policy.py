# SPDX-License-Identifier: MIT
"""Policy interface: decisions, key terms and scopes."""

from __future__ import annotations

from typing import Protocol

import msgspec

from hsm_core.algorithms import ALGORITHMS, Algorithm
from hsm_core.identities import identity
from hsm_core.model import ApprovalDemand, KeyState

__all__ = [
    "EVERY_KEY",
    "Decision",
    "KeyClause",
    "KeyFacts",
    "KeyScope",
    "KeyTerms",
    "NameTerms",
    "ScopedKey",
    "algorithm_facts",
]


class ScopedKey(Protocol):
    """What terms look at; `KeyFacts` and `IndexEntry` have it."""

    @property
    def algorithm(self) -> str:
        """Standard name of the algorithm."""
        ...

    @property
    def name(self) -> str:
        """Unique name, or empty."""
        ...

    @property
    def owner(self) -> str:
        """Who owns it."""
        ...

    @property
    def tags(self) -> frozenset[str]:
        """Its tags."""
        ...

    @property
    def usages(self) -> frozenset[str]:
        """What it may be used for."""
        ...


class NameTerms(msgspec.Struct, frozen=True):
    """Names, and beginnings of names."""

    exact: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()

    def include(self, name: str) -> bool:
        """Return whether a name is one of these, or begins with one."""
        return name in self.exact or name.startswith(self.prefixes)


class KeyTerms(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is asked of a key: all that is not None; of each, one value is enough.

    Attributes:
        algorithms: Standard names.
        owners: Identities (`hsm_core.identities.identity`) of owners.
    """

    algorithms: frozenset[str] | None = None
    usages: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    owners: frozenset[str] | None = None
    names: NameTerms | None = None

    def fulfilled_by(self, key: ScopedKey) -> bool:
        """Return whether a key is meant."""
        return (
            (self.algorithms is None or key.algorithm in self.algorithms)
            and (self.usages is None or not self.usages.isdisjoint(key.usages))
            and (self.tags is None or not self.tags.isdisjoint(key.tags))
            and (self.owners is None or identity(key.owner) in self.owners)
            and (self.names is None or self.names.include(key.name))
        )

    @property
    def is_open(self) -> bool:
        """Whether nothing is asked, so that every key is meant."""
        return self == _OPEN


_OPEN = KeyTerms()


class KeyClause(msgspec.Struct, frozen=True):
    """Keys that fulfil *terms* and do not fulfil *unless*."""

    terms: KeyTerms
    unless: KeyTerms | None = None

    def covers(self, key: ScopedKey) -> bool:
        """Return whether a key is meant."""
        return self.terms.fulfilled_by(key) and not (
            self.unless is not None and self.unless.fulfilled_by(key)
        )


class KeyScope(msgspec.Struct, frozen=True):
    """
    The keys that a listing may show, as a query that a store applies.

    Attributes:
        granted: For each of these groups, one clause of it must cover the key.
        withheld: None of these clauses may cover the key.
    """

    granted: tuple[tuple[KeyClause, ...], ...] = ()
    withheld: tuple[KeyClause, ...] = ()

    @property
    def is_everything(self) -> bool:
        """Whether no key is kept back, so that nothing need be looked at."""
        return not self.granted and not self.withheld

    @property
    def is_nothing(self) -> bool:
        """Whether no key can be shown."""
        return any(not group for group in self.granted)

    def shows(self, key: ScopedKey) -> bool:
        """Return whether a key may be shown."""
        return all(
            any(clause.covers(key) for clause in group) for group in self.granted
        ) and not any(clause.covers(key) for clause in self.withheld)


EVERY_KEY = KeyScope()
"""Matches every key."""


class KeyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Key facts that rules can match."""

    key_id: str
    algorithm: str
    state: KeyState
    name: str = ""
    owner: str = ""
    tags: frozenset[str] = frozenset()
    usages: frozenset[str] = frozenset()

    @property
    def facts(self) -> frozenset[str]:
        """
        What follows from the algorithm.

        Of ``pqc``, ``hybrid``, ``kem``, ``signature`` those that hold, and
        ``category:0``, ``category:1`` … of NIST's scale.
        """
        return algorithm_facts(self.algorithm)


def algorithm_facts(algorithm: str) -> frozenset[str]:
    """Return the facts of `KeyFacts.facts` for an algorithm; none if it is unknown."""
    try:
        row = ALGORITHMS[Algorithm(algorithm)]
    except ValueError:
        return frozenset()
    held = {
        "pqc": row.is_pqc,
        "hybrid": row.is_hybrid,
        "kem": row.is_kem,
        "signature": row.is_signature,
        f"category:{row.category}": True,
    }
    return frozenset(name for name, holds in held.items() if holds)


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """
    Policy decision on one operation.

    Attributes:
        allowed: Whether the operation is allowed.
        may_describe: Whether the caller may know that the key exists.
        rule: Which rule decided; recorded. Of a denial, its name, or ``default-deny``.
            Else what granted it, ``role:ROLE``, ``allow:RULE`` or the name of one of
            the HSM's own doings; or where approvals are asked for, the rules that do,
            ``approval:RULE+RULE…``.
        approvals: Required approvals; all must be met.
    """

    allowed: bool
    may_describe: bool
    rule: str
    approvals: tuple[ApprovalDemand, ...] = ()
