# SPDX-License-Identifier: MIT
"""What approvals must be, computed from a journal; a rule that asks for them."""

from dataclasses import dataclass, field
from typing import Any, Final

from tests.faults.journal import Entry

CONSENTS: Final = frozenset({"Approve", "Deny", "CancelApproval"})
"""What is said of a request; said twice, it changes nothing."""

ASKED: Final = frozenset({"Rollback", "DestroyKey"})
"""What nobody does alone, under `POLICY`."""

POLICY: Final = """\
version: 1
extends: default
rules:
  - name: two-people
    effect: require-approval
    match:
      operations: [Rollback, DestroyKey]
    approval:
      ttl_seconds: 86400
"""
"""The policy of the servers that are killed."""


@dataclass
class ExpectedApproval:
    """
    An approval as the journal of whoever asked for it tells.

    Attributes:
        kind: Of the operation that was asked for.
        key: Our own name for the key that it is about.
        body: Fields of the operation.
        state: As the API names it.
        used_by: Number of the request that used it up; 0 if none has.
        said: What was acknowledged of it: kinds of `CONSENTS`.
    """

    approval_id: str
    kind: str
    key: str
    body: dict[str, Any]
    digest: str
    state: str = "pending"
    used_by: int = 0
    said: set[str] = field(default_factory=set)

    @property
    def is_open(self) -> bool:
        """Whether it may still come to anything."""
        return self.state in {"pending", "granted"}

    def is_about(self, entry: Entry) -> bool:
        """Whether it is open, and for what this request wants to do."""
        return self.is_open and (self.kind, self.key) == (entry.kind, entry.key)
