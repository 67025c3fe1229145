# SPDX-License-Identifier: MIT
"""Policy scopes: key terms, and queries over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hsm_core.identities import identity

__all__ = ["EVERY_KEY", "KeyClause", "KeyScope", "KeyTerms", "NameTerms", "ScopedKey"]


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


@dataclass(frozen=True, slots=True)
class NameTerms:
    """Names, and beginnings of names."""

    exact: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()

    def include(self, name: str) -> bool:
        """Return whether a name is one of these, or begins with one."""
        return name in self.exact or name.startswith(self.prefixes)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTerms:
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


@dataclass(frozen=True, slots=True)
class KeyClause:
    """Keys that fulfil *terms* and do not fulfil *unless*."""

    terms: KeyTerms
    unless: KeyTerms | None = None

    def covers(self, key: ScopedKey) -> bool:
        """Return whether a key is meant."""
        return self.terms.fulfilled_by(key) and not (
            self.unless is not None and self.unless.fulfilled_by(key)
        )


@dataclass(frozen=True, slots=True)
class KeyScope:
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
