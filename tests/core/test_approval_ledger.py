# SPDX-License-Identifier: MIT
"""The digest over all approvals, and what is known of each, against a small model."""

from __future__ import annotations

import hashlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from hsm_core._internal.approvals.journal import ApprovalAnchor, ApprovalSetDigest
from hsm_core.model import ApprovalState

S = ApprovalState
NAMES = st.sampled_from(["one", "two", "three"])
ANCHORS = st.builds(
    ApprovalAnchor, st.integers(1, 9), st.sampled_from(["aa", "bb"]), st.sampled_from(S)
)
STEPS = st.tuples(NAMES, ANCHORS | st.none())


def element(approval_id: str, generation: int, sha256: str) -> int:
    """Return an approval's part of the digest, in the upper half of what can be."""
    named = f"{approval_id} {generation} {sha256}".encode()
    return int.from_bytes(hashlib.sha256(named).digest(), "big") | 1 << 255


def digest_of(known: dict[str, ApprovalAnchor]) -> str:
    """Return what the digest over approvals is by its description."""
    parts = [element(k, a.generation, a.sha256) for k, a in known.items()]
    return f"{sum(parts) % 2**256:064x}" if parts else ""


@given(st.lists(STEPS, max_size=12))
def test_any_history(steps: list[tuple[str, ApprovalAnchor | None]]) -> None:
    """
    Whatever was put and removed before, digest and counts are those of what is there.
    """
    ledger = ApprovalSetDigest(element)
    known: dict[str, ApprovalAnchor] = {}
    for name, anchor in steps:
        if anchor is None:
            ledger.remove([name])
            known.pop(name, None)
        else:
            ledger.put(name, anchor)
            known[name] = anchor

        assert digest_of(known) == ledger.digest
        assert known == {name: ledger.get(name) for name in ledger}
        states = Counter(anchor.state for anchor in known.values())
        assert [states[state] for state in S] == [ledger.count(state) for state in S]
    assert ledger.total == ledger.sum_of(known) == int(digest_of(known) or "0", 16)


@given(st.dictionaries(NAMES, ANCHORS))
def test_goes_on_from_what_was_recorded(known: dict[str, ApprovalAnchor]) -> None:
    """
    A digest from the audit log stands until approvals are adopted.
    """
    recorded = digest_of({"other": ApprovalAnchor(1, "cc", S.PENDING)})
    ledger = ApprovalSetDigest(element, recorded)
    assert (recorded, []) == (ledger.digest, list(ledger))

    ledger.adopt(known)

    assert digest_of(known) == ledger.digest
    assert known == {name: ledger.get(name) for name in ledger}
    assert len(known) == sum(map(ledger.count, S))
