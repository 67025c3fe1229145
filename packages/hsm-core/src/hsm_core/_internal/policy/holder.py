# SPDX-License-Identifier: MIT
"""The policy that is in force now; an operation asks once which, and keeps to it."""

from __future__ import annotations

from hsm_core._internal.policy.engine import RuleEngine


class PolicyHolder:
    """
    Holds the engine in force; putting another in its place is one step.

    Args:
        engine: The first.

        source: ``file``, or the name of a built-in policy.

        loaded_at: When it was read, in microseconds since 1970.

    Attributes:
        source: The same.
        loaded_at: When the policy in force was read.
        problem: Why the file that lies there now is not in force; else empty.
        failures: How often a file was refused since the HSM was opened.
    """

    def __init__(self, engine: RuleEngine, source: str, loaded_at: int) -> None:
        self._engine = engine
        self.source = source
        self.loaded_at = loaded_at
        self.problem = ""
        self.failures = 0

    @property
    def engine(self) -> RuleEngine:
        """The engine in force."""
        return self._engine

    def policy_hash(self) -> str:
        """Return the hash of the policy in force, hex."""
        return self._engine.policy_hash

    def replace(self, engine: RuleEngine, loaded_at: int, *, problem: str = "") -> None:
        """Put another engine in force, for what begins from now on."""
        self._engine = engine
        self.loaded_at = loaded_at
        self.problem = problem

    def refuse(self, problem: str) -> None:
        """Remember that a file could not be put in force."""
        self.problem = problem
        self.failures += 1

    def settle(self) -> None:
        """Forget a problem: what lies there is what is in force."""
        self.problem = ""
