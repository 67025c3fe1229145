# SPDX-License-Identifier: MIT
"""Whom client certificates name: as the policy in force says, and only if it counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hsm_core import operations as ops
from hsm_core.errors import AuthenticationError, InvalidInputError
from hsm_core.model import ApprovalState, Caller, Role
from hsm_core.policies import Policy, parse_policy
from hsm_core.settings import Settings
from hsm_core.testing import caller, memory_hsm
from tests.core.identity_support import known, policy
from tests.core.test_withdrawn_approvers import (
    Keys,
    asked_by_ann,
    granted,
    made,
    put_in_force,
    rotate,
)

A, B = "ab" * 32, "cd" * 32
ON = Settings(certificate_identities=True)


def shown(sha256: str = A, subject: str = "", *names: str) -> Caller:
    """Return a stranger with this certificate."""
    return Caller(
        principal="",
        roles=frozenset(),
        certificate_sha256=sha256,
        certificate_subject=subject,
        certificate_names=names,
    )


SECTIONS = (
    f"principal: ann, roles: [Operator, Auditor], certificates: ['{'AB:' * 31}AB']",
    "principal: ci, roles: [Service], certificate_names: ['dns:ci.example', 'uri:x:y']",
    f"principal: bob, roles: [Auditor], certificate_subjects: ['CN=bob,O=E'], "
    f"certificates: ['{B}']",
)
ANSWERS: dict[str, tuple[Caller, tuple[str, set[str]] | None]] = {
    "by fingerprint": (shown(A), ("ann", {"Operator", "Auditor"})),
    "by name": (shown("ff" * 32, "", "dns:z", "uri:x:y"), ("ci", {"Service"})),
    "by both": (shown(B, "CN=bob,O=E"), ("bob", {"Auditor"})),
    "half": (shown(B, "CN=bob"), None),
    "other half": (shown("ff" * 32, "CN=bob,O=E"), None),
    "another kind": (shown("ff" * 32, "", "email:ci.example"), None),
    "subject is no name": (shown("ff" * 32, "dns:ci.example"), None),
    "no certificate": (shown(""), None),
    "longer": (shown("ff" * 32, "", "dns:ci.example.org"), None),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_who_it_is(name: str) -> None:
    """All conditions of a section must hold, by whole values."""
    asked, expected = ANSWERS[name]
    with memory_hsm(policy=policy(*SECTIONS), settings=ON) as gateway:
        assert expected == known(gateway.identify(asked))
        assert expected == known(gateway.act_as_async().identify(asked))


def test_nobody_by_default() -> None:
    """A policy alone lets nobody in."""
    with memory_hsm(policy=policy(*SECTIONS)) as gateway:
        assert gateway.identify(shown(A)) is None


def test_who_has_names_of_two_is_nobody() -> None:
    """Nobody can know then who it is."""
    people = policy(*SECTIONS[:2])
    with memory_hsm(policy=people, settings=ON) as gateway:
        with pytest.raises(AuthenticationError):
            gateway.identify(shown(A, "", "dns:ci.example"))


ONE = f"principal: ann, roles: [Operator], certificates: ['{A}']"
REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "no condition": (("principal: ann, roles: [Operator]",), "identities[0]: At least"),
    "no roles": ((ONE.replace("[Operator]", "[]"),), "identities[0].roles"),
    "unknown role": ((ONE.replace("Operator", "Root"),), "identities[0].roles"),
    "no principal": ((ONE.replace("ann", "''"),), "identities[0].principal"),
    "reserved": ((ONE.replace("ann", "System.purge"),), "reserved for the HSM"),
    "scheduler": ((ONE.replace("ann", "retention-scheduler"),), "reserved for the HSM"),
    "spaces": ((ONE.replace("ann", "' ann'"),), "trailing spaces"),
    "invisible": ((ONE.replace("ann", '"a\\u200bn"'),), "invisible"),
    "not NFC": ((ONE.replace("ann", '"a\\u0301"'),), "in NFC"),
    "short fingerprint": ((ONE.replace(A, "ab"),), "certificates[0]: A SHA-256"),
    "no kind": (
        ("principal: ci, roles: [Service], certificate_names: [ci.example]",),
        "identities[0].certificate_names[0]: A certificate name",
    ),
    "a prefix": (
        ("principal: ci, roles: [Service], certificate_subjects: ['CN=ci*']",),
        "identities[0].certificate_subjects[0]: The wildcard",
    ),
    "unknown field": ((f"{ONE}, networks: [10.0.0.0/8]",), "unknown field"),
    "same person": (
        (ONE, f"principal: ANN, roles: [Auditor], certificates: ['{B}']"),
        "identities[1].principal: Duplicate principal",
    ),
    "same fingerprint": (
        (ONE, ONE.replace("ann", "bob")),
        "identities[1]: These conditions also match ann",
    ),
    "narrower": (
        (ONE, f"{ONE.replace('ann', 'bob')}, certificate_subjects: ['CN=bob']"),
        "also match ann",
    ),
    "wider": (
        (f"{ONE}, certificate_subjects: ['CN=ann']", ONE.replace("ann", "bob")),
        "also match ann",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """A file that leaves it open who somebody is, or that can't be meant so."""
    sections, problem = REFUSED[name]
    with pytest.raises(InvalidInputError) as caught:
        policy(*sections)

    assert problem in str(caught.value)


def test_apart() -> None:
    """One fingerprint with two subjects may be two people: no certificate is both."""
    both = [f"{ONE}, certificate_subjects: ['CN={n}']" for n in ("a", "b")]

    assert 2 == len(policy(both[0], both[1].replace("ann", "bob")).people)


def test_another_policy_hash() -> None:
    """Who is known is part of what the trail names; the order is not."""
    none = parse_policy("version: 1\nextends: default\n")
    hashes = {
        policy(*sections).policy_hash
        for sections in (SECTIONS, SECTIONS[:2], SECTIONS[::-1])
    }
    wider = policy(ONE.replace("Operator", "Administrator")).policy_hash

    assert 2 == len(hashes)
    assert none.policy_hash not in hashes
    assert wider != policy(ONE).policy_hash


def test_reloaded(tmp_path: Path) -> None:
    """A person counts once the file is in force; a faulty file only takes away."""
    path = tmp_path / "policy.yaml"
    path.write_text(policy(ONE).text)
    settings = Settings(certificate_identities=True, policy_config=path)
    with memory_hsm(settings=settings) as gateway:
        assert ("ann", {"Operator"}) == known(gateway.identify(shown(A)))
        path.write_text(policy(ONE.replace("Operator", "Auditor")).text)
        assert "" == gateway.reload_policy()
        assert ("ann", {"Auditor"}) == known(gateway.identify(shown(A)))
        path.write_text(policy(ONE.replace(A, B)).text)
        assert "" == gateway.reload_policy()
        assert gateway.identify(shown(A)) is None
        path.write_text(policy(ONE).text + "  - {principal: eve}\n")
        assert "identities[1]" in gateway.reload_policy()
        assert gateway.identify(shown(A)) is None
        assert gateway.identify(shown(B)) is None


class TestConsent:
    """What people agreed to with a certificate counts as long as it names them."""

    ASKING = (
        "rules:\n  - {name: asking, effect: require-approval, match: "
        "{operations: [RotateKey]}, approval: {quorum: 1}}\n"
    )
    GRACE = f"principal: grace, roles: [Auditor], certificates: ['{A}']"

    def put(self, *sections: str) -> Policy:
        """Return a policy that asks, and knows these."""
        return policy(*sections, more=self.ASKING)

    def grant(self, gateway: Any, approval_id: str) -> ApprovalState:
        """Consent as whom the certificate names."""
        found = gateway.identify(shown(A))
        who = Caller(
            principal=found.principal,
            roles=found.roles,
            certificate_sha256=A,
            credential_key=found.credential_key,
        )
        return granted(gateway, who, approval_id)

    @pytest.mark.parametrize(
        "changed",
        [ONE.replace(A, B), f"{GRACE.replace(A, B)}", f"{GRACE}, {{}}"],
        ids=["gone", "another certificate", "narrower"],
    )
    def test_withdrawn(self, changed: str) -> None:
        """Somebody who is known no more, or by something else, has granted nothing."""
        changed = changed.replace("{}", "certificate_subjects: ['CN=grace']")
        with memory_hsm(
            policy=self.put(self.GRACE), settings=ON, credential_keys=Keys("token")
        ) as gateway:
            key = made(gateway)
            approval_id = asked_by_ann(gateway, key)
            assert ApprovalState.GRANTED is self.grant(gateway, approval_id)
            put_in_force(gateway, self.put(changed))
            assert approval_id == asked_by_ann(gateway, key)
            put_in_force(gateway, self.put(self.GRACE))
            assert approval_id == asked_by_ann(gateway, key)
            assert ApprovalState.GRANTED is self.grant(gateway, approval_id)

            assert 2 == rotate(gateway, key)

    @pytest.mark.parametrize("names_a_role", [True, False])
    @pytest.mark.parametrize("tells_the_key", [True, False])
    def test_role_taken_away(self, tells_the_key: bool, names_a_role: bool) -> None:
        """The roles of an approver whom the policy names are those of now."""
        rule = self.ASKING
        if names_a_role:
            rule = rule.replace("quorum: 1", "quorum: 1, roles: [Auditor]")
        operator = self.GRACE.replace("Auditor", "Operator")
        service = self.GRACE.replace("Auditor", "Service")
        lesser = operator if names_a_role else service
        keys = Keys("token") if tells_the_key else None
        with memory_hsm(
            policy=policy(self.GRACE, more=rule), settings=ON, credential_keys=keys
        ) as gateway:
            key = made(gateway)
            approval_id = asked_by_ann(gateway, key)
            assert ApprovalState.GRANTED is self.grant(gateway, approval_id)
            put_in_force(gateway, policy(lesser, more=rule))
            assert approval_id == asked_by_ann(gateway, key)
            put_in_force(gateway, policy(self.GRACE, more=rule))
            assert ApprovalState.GRANTED is self.grant(gateway, approval_id)

            assert 2 == rotate(gateway, key)

    def test_another_role_taken_away(self) -> None:
        """A grant for which the role that went was not needed goes on counting."""
        both = self.GRACE.replace("[Auditor]", "[Auditor, Operator]")
        with memory_hsm(
            policy=self.put(both), settings=ON, credential_keys=Keys("token")
        ) as gateway:
            key = made(gateway)
            approval_id = asked_by_ann(gateway, key)
            assert ApprovalState.GRANTED is self.grant(gateway, approval_id)
            put_in_force(gateway, self.put(self.GRACE))

            assert 2 == rotate(gateway, key)

    def test_not_where_certificates_do_not_count(self) -> None:
        """Nobody can grant under the name of what would vouch if they did."""
        with memory_hsm(
            policy=self.put(self.GRACE), credential_keys=Keys("token")
        ) as gateway:
            key = made(gateway)
            approval_id = asked_by_ann(gateway, key)
            (person,) = self.put(self.GRACE).people
            who = caller(Role.AUDITOR, principal="grace")
            granted(
                gateway,
                Caller(
                    principal=who.principal,
                    roles=who.roles,
                    credential_key=person.credential_key,
                ),
                approval_id,
            )

            assert approval_id == asked_by_ann(gateway, key)


class TestExplained:
    """A certificate is enough for the question what somebody may do."""

    def ask(self, *sections: str, **fields: Any) -> ops.PolicyExplanation:
        """Ask whether they may sign."""
        with memory_hsm(policy=policy(*sections)) as gateway:
            hsm = gateway.act_as(caller(Role.AUDITOR))
            return hsm.execute(ops.ExplainPolicy(operation="Sign", **fields))

    def test_by_certificate(self) -> None:
        """It is told who that is, too."""
        found = self.ask(*SECTIONS, certificate_names=("dns:ci.example",))

        assert ("ci", (Role.SERVICE,)) == (found.principal, found.roles)
        assert "allow" == found.outcome

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({}, "principal"),
            ({"certificate_sha256": "ff" * 32}, "principal"),
            ({"certificate_sha256": A, "roles": (Role.AUDITOR,)}, "roles"),
            (
                {"certificate_sha256": A, "certificate_names": ("dns:ci.example",)},
                "certificate_sha256",
            ),
        ],
        ids=["nothing", "unknown", "roles", "two people"],
    )
    def test_nobody(self, fields: dict[str, Any], field: str) -> None:
        """Of nobody nothing can be said."""
        with pytest.raises(InvalidInputError) as caught:
            self.ask(*SECTIONS, **fields)

        assert field == caught.value.facts["field"]
