# SPDX-License-Identifier: MIT
"""What an approval serves: these parameters, this key as it is now, this principal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.algorithms import KeyUsage
from hsm_core.model import ApprovalState, Role
from hsm_core.policies import parse_policy
from hsm_core.testing import caller, memory_hsm
from tests.core.dual_support import (
    TWO_PEOPLE,
    DemandingPolicy,
    approve,
    ask,
    dual_hsm,
    ed25519,
    person,
    sign,
)

S = ApprovalState

CREATE = ops.CreateKey(algorithm="Ed25519", name="agreed")

OTHERS: dict[str, dict[str, Any]] = {
    "algorithm": {"algorithm": "ML-DSA-65"},
    "usages": {"usages": (KeyUsage.VERIFY,)},
    "exportable": {"exportable": True},
    "name": {"name": "other"},
    "owner": {"owner": "somebody"},
    "tags": {"tags": ("production",)},
    "staged": {"staged": True},
}

PAYMENTS = """
version: 1
extends: default
rules:
  - name: signing
    effect: require-approval
    match: {operations: [Sign]}
  - name: payments
    effect: require-approval
    match: {operations: [Sign], tags: [payments]}
    approval: {roles: [Auditor], quorum: 2}
"""


@pytest.mark.parametrize("field", OTHERS)
def test_another_key_is_not_approved(field: str) -> None:
    """AP-04: what was agreed to makes that key, and none with another property."""
    with dual_hsm(DemandingPolicy(CreateKey=TWO_PEOPLE)) as gateway:
        ann, bob = person(gateway, "ann"), person(gateway, "bob")
        asked = ask(ann, CREATE)
        approve(bob, asked)
        other = msgspec.structs.replace(CREATE, **OTHERS[field])

        again = ask(ann, other)
        with pytest.raises(errors.AccessDeniedError):
            ann.execute(other, approval_id=asked.approval_id)
        made = ann.execute(CREATE, approval_id=asked.approval_id)

    assert (S.PENDING, True) == (again.state, again.approval_id != asked.approval_id)
    assert ("Ed25519", False) == (made.algorithm, made.exportable)


@pytest.mark.parametrize("is_granted", [False, True], ids=["pending", "granted"])
def test_a_tag_that_comes_later_counts(*, is_granted: bool) -> None:
    """AP-11: a rule by a new tag asks for its people too, once it is gone as well."""
    with memory_hsm(policy=parse_policy(PAYMENTS)) as gateway:
        ann, maker, key = (
            person(gateway, "ann"),
            person(gateway, "max"),
            ed25519(gateway),
        )
        auditors = [person(gateway, name, Role.AUDITOR) for name in ("eve", "fay")]
        asked = ask(ann, sign(key))
        if is_granted:
            assert S.GRANTED is approve(person(gateway, "bob"), asked).state

        maker.execute(ops.UpdateKey(key_id=key, tags=("payments",)))
        tagged = ask(ann, sign(key))
        untag = ops.UpdateKey(key_id=key, tags=())
        freeing = ask(maker, untag)
        for auditor in auditors:
            approve(auditor, freeing)
        maker.execute(untag)
        untagged = ask(ann, sign(key))

        assert {asked.approval_id} == {tagged.approval_id, untagged.approval_id}
        assert {S.PENDING} == {tagged.state, untagged.state}
        assert "2 more of Auditor" in tagged.missing
        assert tagged.missing == untagged.missing
        for auditor in auditors:
            with pytest.raises(errors.ApprovalRequiredError):
                ann.execute(sign(key), approval_id=asked.approval_id)
            approve(auditor, asked)
        assert ann.execute(sign(key), approval_id=asked.approval_id).signature


LATER = datetime(2040, 1, 1, tzinfo=UTC)
UNDONE: dict[str, tuple[Callable[[str], ops.Operation[Any]], ...]] = {
    # What is asked for, what is done before it, and between consent and use.
    "a hold": (
        lambda key: ops.ReleaseKey(key_id=key, reason="closed"),
        lambda key: ops.HoldKey(key_id=key, reason="case A"),
        lambda key: ops.ReleaseKey(key_id=key, reason="other"),
        lambda key: ops.HoldKey(key_id=key, reason="case B"),
    ),
    "a hold for the same reason": (
        lambda key: ops.ReleaseKey(key_id=key, reason="closed"),
        lambda key: ops.HoldKey(key_id=key, reason="case"),
        lambda key: ops.ReleaseKey(key_id=key, reason="other"),
        lambda key: ops.HoldKey(key_id=key, reason="case"),
    ),
    "a suspension": (
        lambda key: ops.ResumeKey(key_id=key),
        lambda key: ops.SuspendKey(key_id=key, reason="doubt"),
        lambda key: ops.ResumeKey(key_id=key),
        lambda key: ops.SuspendKey(key_id=key, reason="doubt"),
    ),
    "a destruction": (
        lambda key: ops.CancelDestroy(key_id=key),
        lambda key: ops.DestroyKey(key_id=key, waiting_days=7),
        lambda key: ops.CancelDestroy(key_id=key),
        lambda key: ops.DestroyKey(key_id=key, waiting_days=7),
    ),
    "a rotation": (
        lambda key: ops.SetRotation(key_id=key, max_uses=9),
        lambda key: ops.SetRotation(key_id=key, max_uses=5),
        lambda key: ops.SetRotation(key_id=key, max_uses=7),
    ),
    "a retention": (
        lambda key: ops.ExtendRetention(key_id=key, version=1, until=LATER),
        lambda key: ops.RotateKey(key_id=key),
        lambda key: ops.ExtendRetention(
            key_id=key, version=1, until=LATER - timedelta(days=99)
        ),
    ),
}


@pytest.mark.parametrize("case", UNDONE)
def test_a_change_from_what_was_shown(case: str) -> None:
    """Consent to a change of one state is no consent to a change of a later one."""
    wanted, *steps = UNDONE[case]
    policy = DemandingPolicy()
    with dual_hsm(policy) as gateway:
        ann, max_, key = (
            person(gateway, "ann"),
            person(gateway, "max"),
            ed25519(gateway),
        )
        operation = wanted(key)
        max_.execute(steps[0](key))
        demand = {type(operation).__name__: (TWO_PEOPLE,)}
        policy.demands = {**demand}
        asked = ask(ann, operation)
        assert asked.approval_id == ask(ann, operation).approval_id
        approve(person(gateway, "bob"), asked)
        policy.demands = {}
        for step in steps[1:]:
            max_.execute(step(key))
        policy.demands = {**demand}

        with pytest.raises(errors.AccessDeniedError, match="different operation"):
            ann.execute(operation, approval_id=asked.approval_id)
        again = ask(ann, operation)
        approve(person(gateway, "bob"), again)
        ann.execute(operation)

    assert asked.approval_id != again.approval_id


def test_another_credential_of_the_same_person() -> None:
    """The principal is bound, not the token; what its roles forbid stays forbidden."""
    with dual_hsm(DemandingPolicy(CreateKey=TWO_PEOPLE)) as gateway:
        asked = ask(person(gateway, "ann"), CREATE)
        approve(person(gateway, "bob"), asked)

        def ann(*roles: Role) -> Any:
            who = caller(*roles, principal="ann")
            return gateway.act_as(
                msgspec.structs.replace(who, credential_id="another token")
            )

        for named in ("", asked.approval_id):
            with pytest.raises(errors.AccessDeniedError) as caught:
                ann(Role.AUDITOR).execute(CREATE, approval_id=named)
            assert not isinstance(caught.value, errors.ApprovalRequiredError)
        found = ann(Role.AUDITOR).execute(
            ops.GetApproval(approval_id=asked.approval_id)
        )
        made = ann(Role.ADMINISTRATOR).execute(CREATE)

    assert S.GRANTED is found.state
    assert 1 == made.version
