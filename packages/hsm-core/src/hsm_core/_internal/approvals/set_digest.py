# SPDX-License-Identifier: MIT
"""
Set digest of the approvals: the last written state of each, and a digest over all.

The digest stands in the trail. So a store in which a record was edited, added, removed
or put back as it was before differs from the last written one.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from hsm_core.model import ApprovalState

_MODULUS: Final = 1 << 256


@dataclass(frozen=True, slots=True)
class ApprovalAnchor:
    """Last written state of an approval: generation, SHA-256 (hex) and state."""

    generation: int
    sha256: str
    state: ApprovalState


class ApprovalSetDigest:
    """
    Set digest over the last written states of all approvals. Thread-safe.

    Args:
        element: Computes the digest element of one approval;
            `KeyRing.approval_element`.

        recorded: Last recorded digest, hex, or empty.
    """

    def __init__(
        self, element: Callable[[str, int, str], int], recorded: str = ""
    ) -> None:
        self._element = element
        self._total = int(recorded or "0", 16)
        self._anchors: dict[str, ApprovalAnchor] = {}
        self._states: Counter[ApprovalState] = Counter()
        self._lock = threading.Lock()
        self.condemned: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<ApprovalSetDigest of {len(self._anchors)} approvals>"

    @property
    def digest(self) -> str:
        """The digest over all, hex; empty where there is none."""
        return f"{self._total:064x}" if self._total else ""

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter(list(self._anchors))

    def count(self, state: ApprovalState) -> int:
        """Return how many approvals were left in a state."""
        return self._states[state]

    def get(self, approval_id: str) -> ApprovalAnchor | None:
        """Return what is known of an approval."""
        return self._anchors.get(approval_id)

    def put(self, approval_id: str, anchor: ApprovalAnchor) -> None:
        """Note a new state of an approval."""
        with self._lock:
            self._forget(approval_id)
            self._anchors[approval_id] = anchor
            self._states[anchor.state] += 1
            self._add(approval_id, anchor, 1)

    def remove(self, approval_ids: Iterable[str]) -> None:
        """Note that approvals are no more."""
        with self._lock:
            for approval_id in approval_ids:
                self._forget(approval_id)
                self.condemned.pop(approval_id, None)

    def adopt(
        self, anchors: dict[str, ApprovalAnchor], *, total: int | None = None
    ) -> None:
        """
        Know these and nothing else.

        Args:
            anchors: By approval.

            total: What the digest is nevertheless; None to count it.
        """
        with self._lock:
            self._anchors = dict(anchors)
            self._states = Counter(anchor.state for anchor in anchors.values())
            self._total = self.sum_of(anchors) if total is None else total

    def sum_of(self, anchors: dict[str, ApprovalAnchor]) -> int:
        """Return the sum that the digest over these would be."""
        parts = (self._element(k, a.generation, a.sha256) for k, a in anchors.items())
        return sum(parts) % _MODULUS

    @property
    def total(self) -> int:
        """The digest as a number."""
        return self._total

    def _forget(self, approval_id: str) -> None:
        before = self._anchors.pop(approval_id, None)
        if before is not None:
            self._states[before.state] -= 1
            self._add(approval_id, before, -1)

    def _add(self, approval_id: str, anchor: ApprovalAnchor, sign: int) -> None:
        part = self._element(approval_id, anchor.generation, anchor.sha256)
        self._total = (self._total + sign * part) % _MODULUS


def record_sha256(stored: bytes) -> str:
    """Return SHA-256 of a stored form, hex."""
    return hashlib.sha256(stored).hexdigest()
