# SPDX-License-Identifier: MIT
"""The policy that is in force now; an operation asks once which, and keeps to it."""

from __future__ import annotations

from hsm_core.protocols import PolicyEngine

__all__ = ["PolicyHolder"]


class PolicyHolder:
    """
    Holds the engine in force; putting another in its place is one step.

    Args:
        engine: The first.
    """

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine

    @property
    def engine(self) -> PolicyEngine:
        """The engine in force."""
        return self._engine

    def policy_hash(self) -> str:
        """Return the hash of the policy in force, hex."""
        return self._engine.policy_hash

    def replace(self, engine: PolicyEngine) -> None:
        """Put another engine in force, for what begins from now on."""
        self._engine = engine
