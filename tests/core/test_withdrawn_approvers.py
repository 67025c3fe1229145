# SPDX-License-Identifier: MIT
"""AP-06: who granted something must still be one who may when it is used."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.policy.engine import RuleEngine
from hsm_core.factory import OpenHSM
from hsm_core.model import ApprovalState, Caller, Role
from hsm_core.policies import Policy, parse_policy
from hsm_core.session import Session
from hsm_core.testing import caller, memory_hsm

ASKING = (
    "version: 1\nextends: default\nrules:\n  - {name: asking, effect: "
    "require-approval, match: {operations: [RotateKey]}, approval: {quorum: 1}}\n"
)
OFFICE = (
    ASKING + "  - {name: office, effect: deny, match: {operations: [Approve]}, "
    "except: {networks: [10.0.0.0/8]}}\n"
)


ASKING_POLICY = parse_policy(ASKING)


class Keys:
    """The keys that vouch for credentials, as a server would tell."""

    def __init__(self, *names: str) -> None:
        self.names: Collection[str] = names

    def trusted(self) -> Collection[str]:
        """Return those that still count."""
        return self.names


def grace(**facts: Any) -> Caller:
    """Return an approver."""
    return Caller(principal="grace", roles=frozenset({Role.AUDITOR}), **facts)


def asked_by_ann(gateway: OpenHSM, key: str) -> str:
    """Ask for a rotation; return the approval's id."""
    with pytest.raises(errors.ApprovalRequiredError) as caught:
        rotate(gateway, key)
    return str(caught.value.facts["approval_id"])


def rotate(gateway: OpenHSM, key: str) -> int:
    """Rotate as the one who asks; return the new version."""
    return Session(gateway.act_as(caller(principal="ann"))).rotate(key).version


def granted(gateway: OpenHSM, who: Caller, approval_id: str) -> ApprovalState:
    """Grant it; return the state of the approval."""
    register = gateway._services.consents._register  # noqa: SLF001
    digest = register.get(approval_id).shown_sha256
    hsm = gateway.act_as(who)
    return hsm.execute(ops.Approve(approval_id=approval_id, digest=digest)).state


def made(gateway: OpenHSM) -> str:
    """Make a key."""
    return Session(gateway.act_as(caller())).create_key("ed25519").key_id


def put_in_force(gateway: OpenHSM, policy: Policy) -> None:
    """Replace the policy."""
    gateway._services.policy.replace(RuleEngine(policy), 0)  # noqa: SLF001


def test_where_they_were() -> None:
    """A grant counts by the address that it was given from, not by none."""
    with memory_hsm(policy=parse_policy(OFFICE)) as gateway:
        key = made(gateway)
        approval_id = asked_by_ann(gateway, key)
        with pytest.raises(errors.AccessDeniedError):
            granted(gateway, grace(source_address="192.0.2.1"), approval_id)
        granted(gateway, grace(source_address="10.1.2.3"), approval_id)

        assert 2 == rotate(gateway, key)


@pytest.mark.parametrize(
    "condition",
    [
        "principals: [GRACE]",
        f"certificates: ['{'AB' * 32}']",
        "certificate_subjects: ['CN=Grace,O=Example']",
        "certificate_names: ['email:grace@example.com']",
        "networks: [10.0.0.0/8]",
        "roles: [Auditor]",
    ],
    ids=["principal", "certificate", "subject", "name", "network", "role"],
)
def test_blocked_by_the_policy(condition: str) -> None:
    """Whom the policy blocks by now has granted nothing; somebody else can."""
    blocking = ASKING + f"  - {{name: out, effect: deny, match: {{{condition}}}}}\n"
    who = grace(
        certificate_sha256="ab" * 32,
        certificate_subject="CN=Grace,O=Example",
        certificate_names=("email:grace@example.com",),
        source_address="10.1.2.3",
    )
    with memory_hsm(policy=parse_policy(ASKING)) as gateway:
        key = made(gateway)
        approval_id = asked_by_ann(gateway, key)
        assert ApprovalState.GRANTED is granted(gateway, who, approval_id)
        put_in_force(gateway, parse_policy(blocking))

        assert approval_id == asked_by_ann(gateway, key)
        # Who may not approve is not even told that it is there.
        with pytest.raises(errors.AccessDeniedError):
            granted(gateway, who, approval_id)
        other = caller(Role.ADMINISTRATOR, principal="henry")
        assert ApprovalState.GRANTED is granted(gateway, other, approval_id)
        assert 2 == rotate(gateway, key)


class TestKeysOfCredentials:
    def test_replaced(self) -> None:
        """What was granted under a key that counts no more can be granted anew."""
        keys = Keys("first")
        with memory_hsm(policy=ASKING_POLICY, credential_keys=keys) as gateway:
            key = made(gateway)
            approval_id = asked_by_ann(gateway, key)
            granted(gateway, grace(credential_key="first"), approval_id)
            keys.names = ("second",)

            assert approval_id == asked_by_ann(gateway, key)
            granted(gateway, grace(credential_key="first"), approval_id)
            assert approval_id == asked_by_ann(gateway, key)
            granted(gateway, grace(credential_key="second"), approval_id)
            assert 2 == rotate(gateway, key)

    def test_added(self) -> None:
        """A key beside another takes nothing away."""
        keys = Keys("first")
        with memory_hsm(policy=ASKING_POLICY, credential_keys=keys) as gateway:
            key = made(gateway)
            granted(gateway, grace(credential_key="first"), asked_by_ann(gateway, key))
            keys.names = ("second", "first")

            assert 2 == rotate(gateway, key)

    def test_unknown(self) -> None:
        """Where keys vouch, a grant for which none does counts nothing."""
        with memory_hsm(policy=ASKING_POLICY, credential_keys=Keys("k", "")) as gateway:
            key = made(gateway)
            approval_id = asked_by_ann(gateway, key)
            granted(gateway, grace(), approval_id)

            assert approval_id == asked_by_ann(gateway, key)

    def test_embedded(self) -> None:
        """Whoever calls the library knows whom to trust; nothing is asked then."""
        with memory_hsm(policy=ASKING_POLICY) as gateway:
            key = made(gateway)
            granted(gateway, grace(), asked_by_ann(gateway, key))

            assert 2 == rotate(gateway, key)

    def test_the_name_is_not_kept(self) -> None:
        """The store holds a keyed digest: it tells nobody whether a guess is right."""
        with memory_hsm(policy=ASKING_POLICY, credential_keys=Keys("first")) as gateway:
            key = made(gateway)
            approval_id = asked_by_ann(gateway, key)
            granted(gateway, grace(credential_key="first"), approval_id)
            store = gateway._services.consents._register.store  # noqa: SLF001
            stored = json.loads(store.get(approval_id) or b"")

        (decision,) = stored["approval"]["decisions"]
        assert 64 == len(decision["credential_key"])
        assert "first" not in json.dumps(stored)
