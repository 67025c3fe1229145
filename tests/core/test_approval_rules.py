# SPDX-License-Identifier: MIT
"""The bounds of requests and demands, the words of what is missing, and reviews."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from hsm_core._internal.approvals.states import check_move, missing, reviewed
from hsm_core._internal.stores.memory.records import MemoryApprovalStore
from hsm_core.errors import ConflictError, InputSizeError
from hsm_core.model import (
    ApprovalDecision,
    ApprovalDemand,
    ApprovalState,
    Caller,
    Role,
)
from tests.core.approval_support import (
    START,
    approval_id_of,
    approval_of,
    person,
    register_of,
    request_of,
)

S = ApprovalState
ONE = approval_id_of(1)
DEMAND = ApprovalDemand(rule="two-people")
YEAR = 366 * 24 * 3600


def demands_of(field: str, value: int) -> dict[str, Any]:
    """Return a request's demands with one number in them, whatever it is."""
    return {"demands": (msgspec.structs.replace(DEMAND, **{field: value}),)}


@pytest.mark.parametrize(
    ("field", "facts", "most", "unit"),
    [
        ("seconds", lambda value: {"seconds": value}, YEAR, "seconds"),
        ("demands", lambda value: {"demands": (DEMAND,) * value}, 16, "demands"),
        ("quorum", lambda value: demands_of("quorum", value), 100, "people"),
        ("uses", lambda value: demands_of("uses", value), 1_000_000, "uses"),
        ("seconds", lambda value: demands_of("seconds", value), YEAR, "seconds"),
    ],
    ids=["seconds", "demands", "quorum", "uses", "seconds of a demand"],
)
def test_bounds(
    field: str, facts: Callable[[int], dict[str, Any]], most: int, unit: str
) -> None:
    """
    What a request counts is between 1 and its maximum, and those are told.
    """
    for value in (1, most):
        made = register_of(MemoryApprovalStore()).insert(request_of(1, **facts(value)))
        assert 1 == made.generation
    for value in (0, most + 1):
        store = MemoryApprovalStore()
        words = f"^{field} must be between 1 and {most} {unit}, got {value}"
        with pytest.raises(InputSizeError, match=words) as caught:
            register_of(store).insert(request_of(1, **facts(value)))
        limits = {"actual": value, "minimum": 1, "maximum": most}
        assert {"field": field, **limits} == caught.value.facts
        assert [] == list(store.approval_ids())


@pytest.mark.parametrize(
    ("step", "kib"), [("insert", 32), ("grant", 48), ("deny", 56), ("review", 64)]
)
def test_room(step: str, kib: int) -> None:
    """
    A record has its most bytes by the step that writes it, and not one more.
    """

    def stored_bytes(length: int) -> int:
        store = MemoryApprovalStore()
        register = register_of(store)
        name = "n" * length
        if step == "insert":
            register.insert(request_of(1, key_id=name))
            return len(store.get(ONE) or b"")
        register.insert(request_of(1, quorum=2))
        if step == "review":
            register.review(ONE, [ApprovalDemand(rule=name)], lambda decision: True)
        else:
            bob = Caller(principal="bob", roles=frozenset(), credential_id=name)
            register.decide(ONE, bob, granted=step == "grant")
        return len(store.get(ONE) or b"")

    room = kib * 1024 - stored_bytes(1)

    assert kib * 1024 == stored_bytes(1 + room)
    with pytest.raises(InputSizeError) as caught:
        stored_bytes(2 + room)
    limits = caught.value.facts["actual"], caught.value.facts["maximum"]
    assert (kib * 1024 + 1, kib * 1024) == limits


def test_words_of_a_move() -> None:
    """
    A move that is not legal is refused in words, with both states.
    """
    words = "^The approval is denied and can't become granted.$"

    with pytest.raises(ConflictError, match=words) as caught:
        check_move(S.DENIED, S.GRANTED)

    assert {"state": "denied", "wanted": "granted"} == caught.value.facts


def said(name: str, *roles: Role, signature: bytes = b"") -> ApprovalDecision:
    """Return a grant by somebody."""
    return ApprovalDecision(
        principal=name, granted=True, at=START, roles=roles, signature=signature
    )


@pytest.mark.parametrize(
    ("facts", "people", "words"),
    [
        ({}, (), ("1 more person",)),
        ({"quorum": 3}, (said("bob"),), ("2 more people",)),
        ({"quorum": 2}, (said("bob"), said("Bob")), ("1 more person",)),
        ({"quorum": 2}, (said("bob"), said("eve")), ()),
        ({"signed": True}, (said("bob"),), ("1 more person, signed",)),
        ({"signed": True}, (said("bob", signature=b"s"),), ()),
        (
            {"quorum": 2, "roles": (Role.AUDITOR, Role.OPERATOR)},
            (said("bob", Role.SERVICE), said("eve", Role.OPERATOR)),
            ("1 more of Auditor or Operator",),
        ),
        (
            {"distinct_roles": (Role.AUDITOR, Role.OPERATOR)},
            (said("bob", Role.AUDITOR, Role.OPERATOR),),
            ("1 more of Operator",),
        ),
        (
            {"distinct_roles": (Role.AUDITOR, Role.OPERATOR)},
            (said("bob", Role.AUDITOR, Role.OPERATOR), said("eve", Role.AUDITOR)),
            (),
        ),
        (
            {"distinct_roles": (Role.AUDITOR,), "signed": True},
            (),
            ("1 more person, signed", "1 more of Auditor, signed"),
        ),
    ],
)
def test_words_of_what_is_missing(
    facts: dict[str, Any], people: tuple[ApprovalDecision, ...], words: tuple[str, ...]
) -> None:
    """
    What is still needed is told by number, role and signature.
    """
    demand = ApprovalDemand(rule="r", **facts)

    assert words == missing([demand], people)
    # Two rules that ask for the same are told once.
    assert words == missing([demand, demand], people)


class TestReview:
    def test_shorter(self) -> None:
        """
        A new demand ends an approval when it would have ended it, and never later.
        """
        asked = approval_of(1, expires_at=START + 3_600_000_000)
        ends = {
            seconds: reviewed(
                asked,
                [DEMAND, ApprovalDemand(rule="new", seconds=seconds)],
                lambda decision: True,
                START,
            ).expires_at
            for seconds in (60, 3598, 3599, 7200)
        }

        made = asked.created_at
        assert {
            60: made + 60_000_000,
            3598: made + 3_598_000_000,
            3599: START + 3_600_000_000,
            7200: START + 3_600_000_000,
        } == ends

    def test_fewer_uses(self) -> None:
        """
        Of the uses that are left and those of new demands the fewest are left.
        """
        asked = approval_of(1, uses_left=5)
        left = [
            reviewed(
                asked,
                [ApprovalDemand(rule=f"new-{n}", uses=n) for n in uses],
                lambda decision: True,
                START,
            ).uses_left
            for uses in ((9,), (9, 3), (2, 7))
        ]

        assert [5, 3, 2] == left

    def test_nothing_new(self) -> None:
        """
        Where the policy asks what it asked, and trusts whom it did, nothing changes.
        """
        asked = approval_of(1, state=S.GRANTED, decisions=(said("bob"),))

        assert asked is reviewed(asked, [DEMAND], lambda decision: True, START)

    def test_trusted_no_more(self) -> None:
        """
        A grant that counts no more is marked with the time; the request waits again.
        """
        decisions = said("bob"), said("eve")
        asked = approval_of(1, state=S.GRANTED, decisions=decisions)

        found = reviewed(asked, [], lambda d: d.principal == "eve", START + 7)
        again = reviewed(found, [], lambda d: False, START + 8)

        assert (S.GRANTED, 2) == (found.state, found.generation)
        assert [START + 7, 0] == [d.withdrawn_at for d in found.decisions]
        assert (S.PENDING, 3) == (again.state, again.generation)
        assert [START + 7, START + 8] == [d.withdrawn_at for d in again.decisions]

    def test_too_many(self) -> None:
        """
        Sixteen demands fit; a policy that asks for one more makes people ask anew.
        """
        asked = approval_of(1)
        new = [ApprovalDemand(rule=f"new-{n}") for n in range(16)]

        full = reviewed(asked, new[:15], lambda decision: True, START)
        assert 16 == len(full.demands)
        with pytest.raises(ConflictError, match="open a new one"):
            reviewed(asked, new, lambda decision: True, START)

    @pytest.mark.parametrize("shared", [True, False])
    def test_shared_certificate(self, *, shared: bool) -> None:
        """
        Whether a certificate is one person's is the register's to say, at any review.
        """
        register = register_of(MemoryApprovalStore())
        register.insert(request_of(1, quorum=2))
        for name in ("bob", "eve"):
            who = msgspec.structs.replace(person(name), certificate_sha256="c")
            register.decide(ONE, who, granted=True, distinct_certificates=False)

        found = register.review(
            ONE, [], lambda decision: True, distinct_certificates=not shared
        )

        assert (S.GRANTED if shared else S.PENDING) is found.state
