# SPDX-License-Identifier: MIT
"""Policy interface: a pure function of operation, caller and key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hsm_core.algorithms import ALGORITHMS, Algorithm
from hsm_core.model import ApprovalDemand, Caller, KeyState
from hsm_core.operations import Operation
from hsm_core.protocols.scopes import KeyScope

__all__ = [
    "Decision",
    "KeyFacts",
    "PolicyEngine",
    "algorithm_facts",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFacts:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
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


class PolicyEngine(Protocol):
    """A pure function of operation, caller and key facts; default deny."""

    @property
    def policy_hash(self) -> str:
        """SHA-256 of the policy in force, hex; stands in every record."""
        ...

    def decide(
        self,
        operation: Operation[object],
        caller: Caller,
        key: KeyFacts | None,
        /,
        *,
        at: int,
    ) -> Decision:
        """
        Decide.

        Args:
            operation: Resolved as far as it could be.

            caller: Who asks.

            key: The key that it is about; None if it is about none, or if that key
                is missing.

            at: When, in microseconds since 1970.
        """
        ...

    def visible(self, caller: Caller, /, *, at: int) -> KeyScope:
        """Return which keys a listing may show to a caller."""
        ...

    def freed(self, before: KeyFacts, after: KeyFacts, /) -> tuple[ApprovalDemand, ...]:
        """
        Return the demands that a label change would remove from a key.

        Args:
            before: The key as it is.

            after: As it would be.

        Returns:
            Demands of rules that hold for the one, for somebody at some time, and would
            not hold for the other.
        """
        ...

    def allows_revoked(self, kind: str, /) -> bool:
        """Whether an operation of this name may use a revoked version."""
        ...
