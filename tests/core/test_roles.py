# SPDX-License-Identifier: MIT
"""Roles and built-in rules: who may do what, tried cell by cell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.policy.engine import RuleEngine
from hsm_core.algorithms import ALGORITHMS, Algorithm
from hsm_core.factory import OpenHSM
from hsm_core.model import ApprovalState, Caller, KeyState, Role
from hsm_core.operations import OPERATIONS, Operation
from hsm_core.policies import built_in_policy, built_in_text, parse_policy
from hsm_core.protocols import Decision, KeyFacts
from hsm_core.settings import PolicyProfile, Settings
from hsm_core.testing import caller, memory_hsm
from tests import self_tests
from tests.core.changed_stores import DATA, Data
from tests.core.dual_support import approve, ask, person

#                   Administrator, Operator, Auditor, Service
EXPECTED = {
    "CreateKey":        "A O - -",
    "ImportKey":        "A - - -",
    "DeriveKey":        "A O - -",
    "ExportKey":        "A - - -",
    "DescribeKey":      "A O U S",
    "ListKeys":         "A O U S",
    "ListVersions":     "A O U S",
    "RotateKey":        "A O - -",
    "Rollback":         "A O - -",
    "RevokeKey":        "A - - -",
    "DestroyKey":       "A - - -",
    "GetPublicKey":     "A O U S",
    "Sign":             "- O - S",
    "Verify":           "- O - S",
    "RawSign":          "- O - S",
    "RawVerify":        "- O - S",
    "DecryptPKCS1":     "- - - -",
    "Encrypt":          "- O - S",
    "Decrypt":          "- O - S",
    "Encapsulate":      "- O - S",
    "Decapsulate":      "- O - S",
    "Seal":             "- O - S",
    "Open":             "- O - S",
    "Rewrap":           "- O - S",
    "GenerateDataKey":  "- O - S",
    "ComputeMac":       "- O - S",
    "VerifyMac":        "- O - S",
    "SignBatch":        "- O - S",
    "VerifyBatch":      "- O - S",
    "EncryptBatch":     "- O - S",
    "DecryptBatch":     "- O - S",
    "ComputeMacBatch":  "- O - S",
    "VerifyMacBatch":   "- O - S",
    "GenerateRandom":   "- O - S",
    "ListAuditEvents":  "A - U -",
    "VerifyAudit":      "A - U -",
    "Status":           "A O U S",
    "ListAlgorithms":   "A O U S",
    "DescribeCaller":   "A O U S",
    "VerifyStore":      "A - U -",
    "BackUpStores":     "A - - -",
    "RecoverStore":     "A - - -",
    "RecoverKey":       "A - - -",
    "SelfTest":         "A - - -",
    "ListNodes":        "A O U S",
    "RetireNode":       "A - - -",
    "ActivateKey":      "A O - -",
    "SuspendKey":       "A O - -",
    "ResumeKey":        "A O - -",
    "AttachCertificates": "A O - -",
    "GetCertificates":  "A O U S",
    "RemoveCertificates": "A O - -",
    "UpdateKey":        "A - - -",
    "SetRotation":      "A - - -",
    "CancelDestroy":    "A - - -",
    "ShowPolicy":       "A - U -",
    "ExplainPolicy":    "A - U -",
    "TestPolicy":       "A - U -",
    "ListApprovals":    "A O U S",
    "GetApproval":      "A O U S",
    "Approve":          "A O U -",
    "Deny":             "A O U -",
    "Withdraw":         "A O U -",
    "CancelApproval":   "A O U S",
    "ExtendRetention":  "A - U -",
    "HoldKey":          "A - U -",
    "ReleaseKey":       "A - - -",
    "RetentionStatus":  "A O U -",
    "BeginLedger":      "A - - -",
}  # fmt: skip
LETTERS = {
    "A": Role.ADMINISTRATOR,
    "O": Role.OPERATOR,
    "U": Role.AUDITOR,
    "S": Role.SERVICE,
}

APPROVAL = "5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24"

ARGUMENTS: dict[type[Operation[Any]], dict[str, Any]] = {
    ops.CreateKey: {"algorithm": "ed25519"},
    ops.ExtendRetention: {
        "version": 1,
        "until": datetime(2100, 1, 1, tzinfo=UTC),
    },
    ops.Deny: {"approval_id": APPROVAL, "reason": "no"},
    ops.HoldKey: {"reason": "case"},
    ops.ReleaseKey: {"reason": "closed"},
    ops.Rollback: {"version": 1},
    ops.Sign: {"message": b""},
    ops.Verify: {"message": b"", "signature": b""},
    ops.RawSign: {"data": b""},
    ops.RawVerify: {"data": b"", "signature": b""},
    ops.DecryptPKCS1: {"ciphertext": b""},
    ops.AttachCertificates: {"chain": b""},
    ops.Encrypt: {"plaintext": b""},
    ops.Decrypt: {"ciphertext": b""},
    ops.ComputeMac: {"message": b""},
    ops.VerifyMac: {"message": b"", "mac": b""},
    ops.GenerateRandom: {"length": 1},
    ops.Decapsulate: {"ciphertext": b""},
    ops.Seal: {"plaintext": b""},
    ops.Open: {"ciphertext": b""},
    ops.Rewrap: {"ciphertext": b""},
    ops.SignBatch: {"items": (ops.SignItem(message=b""),)},
    ops.VerifyBatch: {"items": (ops.VerifyItem(message=b"", signature=b""),)},
    ops.EncryptBatch: {"items": (ops.EncryptItem(plaintext=b""),)},
    ops.DecryptBatch: {"items": (ops.DecryptItem(ciphertext=b""),)},
    ops.ComputeMacBatch: {"items": (ops.MacInput(message=b""),)},
    ops.VerifyMacBatch: {"items": (ops.VerifyMacItem(message=b"", mac=b""),)},
    ops.ImportKey: {"algorithm": "ed25519", "wrapped": b""},
    ops.DeriveKey: {"algorithm": "aes256gcm"},
    ops.RecoverStore: {"reason": "x"},
    ops.BeginLedger: {"reason": "x"},
    ops.ExplainPolicy: {"operation": "Sign", "principal": "x"},
    ops.TestPolicy: {"policy": "version: 1"},
    ops.RecoverKey: {"reason": "x"},
    ops.RetireNode: {"node": "b"},
    ops.GetApproval: {"approval_id": APPROVAL},
    ops.Approve: {"approval_id": APPROVAL, "digest": "41" * 32},
    ops.Withdraw: {"approval_id": APPROVAL},
    ops.CancelApproval: {"approval_id": APPROVAL},
}


def sample(kind: type[Operation[Any]], key_id: str) -> Operation[Any]:
    """Return a valid operation of a kind."""
    arguments = dict(ARGUMENTS.get(kind, {}))
    if "key_id" in kind.__struct_fields__ and kind not in {
        ops.ListAuditEvents,
        ops.ExplainPolicy,
    }:
        arguments["key_id"] = key_id
    arguments |= dict.fromkeys(kind.other_keys, key_id)
    return kind(**arguments)


def test_the_expected_table_is_whole() -> None:
    """Every operation has a row, so a new one can't slip in without a decision."""
    assert EXPECTED.keys() == {operation.__name__ for operation in OPERATIONS}


@pytest.fixture(scope="module")
def shared() -> Iterator[OpenHSM]:
    """Give an HSM that all cells are tried on."""
    with memory_hsm() as opened:
        yield opened


@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.__name__)
def test_every_cell(
    shared: OpenHSM, kind: type[Operation[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each role is let through or denied as the table says, and no role is denied."""
    self_tests.once(monkeypatch)
    allowed = {
        LETTERS[letter] for letter in EXPECTED[kind.__name__] if letter in "AOUS"
    }
    key = shared.act_as(caller()).execute(ops.CreateKey(algorithm="ed25519"))
    passed = set()
    for role in Role:
        try:
            shared.act_as(caller(role)).execute(sample(kind, key.key_id))
        except errors.AccessDeniedError:
            continue
        except errors.HSMError:
            pass
        passed.add(role)
    nobody = Caller(principal="nobody", roles=frozenset())
    with pytest.raises((errors.AccessDeniedError, errors.KeyNotFoundError)):
        shared.act_as(nobody).execute(sample(kind, key.key_id))

    assert allowed == passed


def test_profiles_grant_the_same() -> None:
    """The strict profile adds rules, and changes no role."""
    grants = [built_in_policy(profile).grants for profile in PolicyProfile]

    assert grants[0] == grants[1]


def test_the_policy_hash_follows_the_table() -> None:
    """Another table has another hash, and the same one the same."""
    text = built_in_text(PolicyProfile.DEFAULT)
    other = text.replace("  Auditor: [", "  Auditor: [Sign, ")

    hashes = [parse_policy(t).policy_hash for t in (text, f"# Hm.\n{text}", other)]

    assert hashes[0] == hashes[1] == built_in_policy(PolicyProfile.DEFAULT).policy_hash
    assert hashes[0] != hashes[2]


def test_a_caller_who_may_not_describe_is_told_nothing() -> None:
    """Without the right to describe, a real key looks like a missing one."""
    nobody = Caller(principal="nobody", roles=frozenset())
    answers = set()

    with memory_hsm() as gateway:
        key = gateway.act_as(caller()).execute(ops.CreateKey(algorithm="ed25519"))
        for reference in (key.key_id, "made-up"):
            with pytest.raises(errors.KeyNotFoundError) as caught:
                gateway.act_as(nobody).execute(ops.DescribeKey(key_id=reference))
            answers.add((str(caught.value), tuple(caught.value.facts.items())))

    assert 1 == len(answers)


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
