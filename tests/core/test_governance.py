# SPDX-License-Identifier: MIT
"""Rules for post-quantum keys: who may make, import, rotate and destroy which."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.policy.engine import RuleEngine
from hsm_core.algorithms import ALGORITHMS, Algorithm
from hsm_core.model import ApprovalState, Caller, KeyState, Role
from hsm_core.operations import Operation
from hsm_core.policies import built_in_policy, parse_policy
from hsm_core.protocols import Decision, KeyFacts
from hsm_core.settings import PolicyProfile, Settings
from hsm_core.testing import caller, memory_hsm
from tests.core.changed_stores import DATA, Data
from tests.core.dual_support import approve, ask, person
from tests.core.test_roles import sample

OPEN = (ApprovalState.PENDING, ApprovalState.GRANTED)

RESTRICTED = {
    "ML-KEM-1024",
    "ML-DSA-87",
    "SLH-DSA-SHA2-256s",
    "SLH-DSA-SHA2-256f",
    "SLH-DSA-SHAKE-256s",
    "SLH-DSA-SHAKE-256f",
    "MLKEM1024-ECDH-P384-SHA3-256",
    "MLDSA87-ECDSA-P384-SHA512",
}
DUAL_CONTROL = RESTRICTED | {
    "ML-KEM-768",
    "SLH-DSA-SHA2-192s",
    "SLH-DSA-SHA2-192f",
    "SLH-DSA-SHAKE-192s",
    "SLH-DSA-SHAKE-192f",
    "MLKEM768-ECDH-P256-SHA3-256",
    "MLKEM768-X25519-SHA3-256",
}
EVERYTHING = "[" + ", ".join(o.__name__ for o in ops.OPERATIONS) + "]"
ALL_GRANTS = "".join(
    [
        "version: 1\nextends: default\ngrants:\n",
        *(f"  {role}: {EVERYTHING}\n" for role in Role),
    ]
)
"""So that what a rule refuses can't be told from what a role was not granted."""


def decide(
    engine: RuleEngine, operation: Operation[Any], who: Caller, key: KeyFacts | None
) -> Decision:
    """Decide at an instant that no rule looks at."""
    return engine.decide(operation, who, key, at=0)


def on_key(kind: type[Operation[Any]], algorithm: str) -> tuple[Any, KeyFacts | None]:
    """Return an operation on a key of an algorithm, and the key's facts."""
    if kind is ops.CreateKey:
        return ops.CreateKey(algorithm=algorithm), None
    if kind is ops.ImportKey:
        wrapping = KeyFacts(key_id="w", algorithm="RSA-3072", state=KeyState.ACTIVE)
        return (
            ops.ImportKey(algorithm=algorithm, wrapping_key_id="w", wrapped=b""),
            wrapping,
        )
    more = {"version": 1} if kind is ops.Rollback else {}
    facts = KeyFacts(key_id="k", algorithm=algorithm, state=KeyState.ACTIVE)
    return kind(key_id="k", **more), facts


KINDS = (ops.CreateKey, ops.ImportKey, ops.RotateKey, ops.Rollback, ops.DestroyKey)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("algorithm", Algorithm)
def test_restricted_algorithms(
    kind: type[Operation[Any]], algorithm: Algorithm
) -> None:
    """Only an Administrator governs keys of the strongest post-quantum algorithms."""
    engine = RuleEngine(parse_policy(ALL_GRANTS))
    operation, facts = on_key(kind, algorithm.value)

    decisions = {r: decide(engine, operation, caller(r), facts) for r in Role}

    others = [decisions[r] for r in Role if r is not Role.ADMINISTRATOR]
    assert decisions[Role.ADMINISTRATOR].allowed
    assert {algorithm.value not in RESTRICTED} == {d.allowed for d in others}
    if algorithm.value in RESTRICTED:
        assert {"pqc-restricted"} == {d.rule for d in others}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("algorithm", Algorithm)
def test_dual_control_of_the_strict_profile(
    kind: type[Operation[Any]], algorithm: Algorithm
) -> None:
    """The strict profile asks for approval, the default profile for none of these."""
    operation, facts = on_key(kind, algorithm.value)
    administrator = caller(Role.ADMINISTRATOR)

    asked = {
        profile: tuple(
            demand.rule
            for demand in decide(
                RuleEngine(built_in_policy(profile)), operation, administrator, facts
            ).approvals
        )
        for profile in PolicyProfile
    }

    demanded: tuple[str, ...] = ("key-end",) if kind is ops.DestroyKey else ()
    demanded += ("pqc-dual-control",) if algorithm.value in DUAL_CONTROL else ()
    assert {PolicyProfile.DEFAULT: (), PolicyProfile.STRICT: demanded} == asked


# Which rules of default and of strict ask, for a key with the tag dual and another.
_DUAL = "dual-control"
ENDINGS: dict[str, tuple[str, str, str, str]] = {
    "DestroyKey": (_DUAL, "", f"{_DUAL} key-end", "key-end"),
    "RevokeKey": (_DUAL, "", f"{_DUAL} key-end", "key-end"),
    "ReleaseKey": (_DUAL, "", f"{_DUAL} hold-release", "hold-release"),
    "RecoverKey": ("", "", "recovery", "recovery"),
    "RecoverStore": ("", "", "recovery", "recovery"),
    "SuspendKey": ("", "", "", ""),
}


@pytest.mark.parametrize("kind", ENDINGS)
def test_consent_to_what_ends_a_key(kind: str) -> None:
    """One administrator ends no key with the tag dual, and in strict no key."""
    found = []
    for profile in PolicyProfile:
        settings = Settings(policy_profile=profile)
        with memory_hsm(settings=settings) as gateway:
            ann = gateway.act_as(caller(principal="ann"))
            auditor = gateway.act_as(caller(Role.AUDITOR, principal="ute"))
            for tags in (("dual",), ()):
                create = ops.CreateKey(algorithm="ed25519", tags=tags, exportable=True)
                key = ann.execute(create).key_id
                if kind == "ReleaseKey":
                    auditor.execute(ops.HoldKey(key_id=key, reason="case"))
                with suppress(errors.HSMError):
                    ann.execute(sample(getattr(ops, kind), key))
                page = auditor.execute(ops.ListApprovals(states=OPEN))
                rules = [d.rule for item in page.items for d in item.demands]
                found.append(" ".join(sorted(rules)))
                for item in page.items:
                    ann.execute(ops.CancelApproval(approval_id=item.approval_id))

    assert ENDINGS[kind] == tuple(found)


def test_an_auditor_releases_the_hold_of_an_auditor() -> None:
    """In strict an Operator's consent does not release a hold; an Auditor's does."""
    settings = Settings(policy_profile=PolicyProfile.STRICT)
    with memory_hsm(settings=settings) as gateway:
        ann = person(gateway, "ann")
        operator = person(gateway, "otto", Role.OPERATOR)
        auditor = person(gateway, "ute", Role.AUDITOR)
        key = ann.execute(ops.CreateKey(algorithm="ed25519")).key_id
        auditor.execute(ops.HoldKey(key_id=key, reason="case"))
        release = ops.ReleaseKey(key_id=key, reason="closed")

        asked = ask(ann, release)
        with pytest.raises(errors.AccessDeniedError):
            approve(operator, asked)
        approve(auditor, asked)
        released = ann.execute(release)

    assert not released.hold


@pytest.mark.parametrize("data_of", DATA)
def test_a_locked_store_is_recovered_by_two(
    tmp_path: Path, data_of: type[Data]
) -> None:
    """What needs consent while the HSM is locked can be consented to while it is."""
    (tmp_path / "data").mkdir(mode=0o700)
    data, recover = data_of(tmp_path / "data"), ops.RecoverStore(reason="restored")
    create = ops.CreateKey(algorithm="ed25519")
    with data.open(profile=PolicyProfile.STRICT) as gateway:
        person(gateway, "ann").execute(create)
    data.keep("monday")
    with data.open(profile=PolicyProfile.STRICT) as gateway:
        person(gateway, "ann").execute(create)
    data.restore_store("monday")

    with data.open(profile=PolicyProfile.STRICT) as gateway:
        ann, bob = person(gateway, "ann"), person(gateway, "bob")
        with pytest.raises(errors.HSMLockedError):
            ann.execute(create)
        asked = ask(ann, recover)
        with pytest.raises(errors.HSMLockedError):
            ann.execute(create)
        approve(bob, asked)
        ann.execute(recover)
        ann.execute(create)
        state = ann.execute(ops.GetApproval(approval_id=asked.approval_id)).state

    assert ApprovalState.CONSUMED is state


def test_use_is_not_restricted() -> None:
    """Whoever may sign may sign with a key that only an Administrator may make."""
    facts = KeyFacts(key_id="k", algorithm="ML-DSA-87", state=KeyState.ACTIVE)

    decision = decide(
        RuleEngine(), ops.Sign(key_id="k", message=b""), caller(Role.SERVICE), facts
    )

    assert decision.allowed


def test_an_operator_is_told_which_rule_refused() -> None:
    """The refusal names the rule, and so does its record."""
    with memory_hsm() as gateway:
        operator = gateway.act_as(caller(Role.OPERATOR))
        with pytest.raises(errors.AccessDeniedError, match="pqc-restricted"):
            operator.execute(ops.CreateKey(algorithm="ml-dsa-87"))
        auditor = gateway.act_as(caller(Role.AUDITOR))
        page = auditor.execute(ops.ListAuditEvents(kind=("CreateKey",)))

    assert ["pqc-restricted"] == [entry.event.rule for entry in page.items]


def test_an_operator_cannot_rotate_what_an_administrator_made() -> None:
    """The rule holds for the key's life, not only for its creation."""
    with memory_hsm() as gateway:
        administrator = gateway.act_as(caller(Role.ADMINISTRATOR))
        operator = gateway.act_as(caller(Role.OPERATOR))
        made = administrator.execute(ops.CreateKey(algorithm="ml-kem-1024"))
        with pytest.raises(errors.AccessDeniedError):
            operator.execute(ops.RotateKey(key_id=made.key_id))
        rotated = administrator.execute(ops.RotateKey(key_id=made.key_id))
        with pytest.raises(errors.AccessDeniedError):
            operator.execute(ops.Rollback(key_id=made.key_id, version=1))

    assert 2 == rotated.version


def test_the_hash_follows_the_rules() -> None:
    """Two profiles are two policies, and the trail can tell them apart."""
    hashes = {built_in_policy(profile).policy_hash for profile in PolicyProfile}

    assert len(PolicyProfile) == len(hashes)


@pytest.mark.parametrize(
    ("algorithm", "facts"),
    [
        ("AES-256-GCM", {"category:5"}),
        ("EC-P256", {"signature", "category:0"}),
        ("ML-KEM-512", {"pqc", "kem", "category:1"}),
        ("ML-DSA-44", {"pqc", "signature", "category:2"}),
        ("SLH-DSA-SHAKE-192s", {"pqc", "signature", "category:3"}),
        ("MLKEM768-X25519-SHA3-256", {"pqc", "hybrid", "kem", "category:3"}),
        ("MLDSA65-Ed25519-SHA512", {"pqc", "hybrid", "signature", "category:3"}),
        ("none of them", set()),
    ],
)
def test_facts_that_rules_can_match(algorithm: str, facts: set[str]) -> None:
    """What a key is follows from its algorithm."""
    key = KeyFacts(key_id="k", algorithm=algorithm, state=KeyState.ACTIVE)

    assert facts == key.facts


def test_every_quantum_safe_algorithm_is_a_fact() -> None:
    """``pqc`` holds for the post-quantum families and for nothing else."""
    for row in ALGORITHMS.values():
        key = KeyFacts(key_id="k", algorithm=row.algorithm.value, state=KeyState.ACTIVE)
        assert row.is_pqc == ("pqc" in key.facts)
        assert row.is_hybrid == bool(row.components)


def test_nobody_without_a_role_profits_from_a_rule() -> None:
    """A rule narrows what roles grant and grants nothing itself."""
    nobody = Caller(principal="nobody", roles=frozenset())

    decision = decide(RuleEngine(), ops.CreateKey(algorithm="ML-DSA-87"), nobody, None)

    assert not decision.allowed
