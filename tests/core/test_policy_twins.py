# SPDX-License-Identifier: MIT
"""Twins: a rule about one operation covers every request that yields the same."""

from __future__ import annotations

from typing import Any

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.policy.engine import RuleEngine
from hsm_core._internal.policy.explaining import change_of
from hsm_core.algorithms import Algorithm, KeyUsage, spec
from hsm_core.factory import OpenHSM
from hsm_core.model import PolicyOutcome, Role
from hsm_core.operations import Operation
from hsm_core.policies import parse_policy
from hsm_core.protocols import HSM
from hsm_core.testing import caller, memory_hsm
from tests.core.dual_support import approve, ask, events_of, person
from tests.core.test_roles import sample

KEM = "ML-KEM-768"
HEADER_BYTES = 36
ALL_USAGES = {
    "sign": "Sign RawSign",
    "encrypt": "Encrypt RawEncrypt",
    "decrypt": "Decrypt DecryptPKCS1 Open RawDecrypt",
    "decapsulate": "Decapsulate",
    "mac": "ComputeMac",
    "derive": "DeriveKey",
    "unwrap": "ImportKey",
}
KEY_FOR = {
    "SignBatch": "Ed25519",
    "VerifyBatch": "Ed25519",
    "EncryptBatch": "AES-256-GCM",
    "DecryptBatch": "AES-256-GCM",
    "ComputeMacBatch": "HMAC-SHA-256",
    "VerifyMacBatch": "HMAC-SHA-256",
    "Decapsulate": KEM,
}
CREATED_WITH = {
    "sign": "Ed25519",
    "encrypt": "AES-256-GCM",
    "decrypt": "AES-256-GCM",
    "decapsulate": KEM,
    "mac": "HMAC-SHA-256",
    "derive": "HKDF-SHA-256",
    "unwrap": "AES-256-KW",
}


def hsm_with(*rules: str, grants: str = "") -> OpenHSM:
    """Open an HSM under the default policy, these rules and these grants."""
    lines = [f"  - {{name: r{n}, {text}}}\n" for n, text in enumerate(rules)]
    text = "version: 1\nextends: default\n" + grants
    text += "rules:\n" + "".join(lines) if lines else ""
    return memory_hsm(policy=parse_policy(text))


def made(gateway: OpenHSM, algorithm: str, *usages: str, **facts: Any) -> str:
    """Create a key."""
    create = ops.CreateKey(
        algorithm=algorithm, usages=tuple(map(KeyUsage, usages)), **facts
    )
    return gateway.act_as(caller(principal="maker")).execute(create).key_id


def denied_by(gateway: OpenHSM, operation: Operation[Any]) -> str:
    """Execute an operation that a rule denies, and return the rule."""
    with pytest.raises(errors.AccessDeniedError) as caught:
        gateway.act_as(caller(principal="bob")).execute(operation)
    return str(caught.value.facts["rule"])


def is_denied(hsm: HSM, operation: Operation[Any]) -> bool:
    """Execute an operation, and return whether the policy refuses it."""
    try:
        hsm.execute(operation)
    except (errors.AccessDeniedError, errors.KeyNotFoundError):
        return True
    except errors.HSMError:
        pass  # The request was let through, and had other faults.
    return False


def decapsulation(gateway: OpenHSM, key: str) -> ops.Decapsulate:
    """Seal a message, and return the request for the secret that opens it."""
    hsm = gateway.act_as(caller(principal="maker"))
    sealed = hsm.execute(ops.Seal(key_id=key, plaintext=b"m", aad=b"case 7"))
    size = spec(Algorithm(KEM)).ciphertext_bytes
    cut = sealed.ciphertext[HEADER_BYTES : HEADER_BYTES + size]
    return ops.Decapsulate(key_id=key, ciphertext=cut)


@pytest.mark.parametrize("batch", [name for name in KEY_FOR if "Batch" in name])
def test_a_rule_on_the_single_operation_covers_the_batch(batch: str) -> None:
    """Each item is decided; an approval is required for the batch as a whole."""
    single = batch.removesuffix("Batch")
    with (
        hsm_with(f"effect: deny, match: {{operations: [{single}]}}") as denying,
        hsm_with(
            f"effect: require-approval, match: {{operations: [{single}]}}"
        ) as dual,
    ):
        kind = getattr(ops, batch)
        key, other = made(denying, KEY_FOR[batch]), made(dual, KEY_FOR[batch])

        assert "r0" == denied_by(denying, sample(kind, key))
        asked = ask(person(dual, "ann"), sample(kind, other))
        assert ["r0"] == [demand.rule for demand in asked.demands]
        approve(person(dual, "bob"), asked)
        person(dual, "ann").execute(sample(kind, other))


def test_a_sealed_message_is_not_read_by_decapsulation() -> None:
    """Where Open is denied, the encapsulation cut out of the message tells nothing."""
    with hsm_with("effect: deny, match: {operations: [Open], tags: [mail]}") as gateway:
        key = made(
            gateway, KEM, "encrypt", "decrypt", "encapsulate", "decapsulate",
            tags=("mail",),
        )  # fmt: skip
        plain = made(gateway, KEM, "encrypt", "decrypt", "encapsulate", "decapsulate")

        assert "r0" == denied_by(gateway, decapsulation(gateway, key))
        operator = gateway.act_as(caller(Role.OPERATOR))
        operator.execute(decapsulation(gateway, plain))


def test_opening_that_needs_approval() -> None:
    """Who needs consent to open needs it to decapsulate, too."""
    with hsm_with("effect: require-approval, match: {operations: [Open]}") as gateway:
        key = made(gateway, KEM)
        wanted = decapsulation(gateway, key)

        asked = ask(person(gateway, "ann"), wanted)
        approve(person(gateway, "bob"), asked)
        secret = person(gateway, "ann").execute(wanted)

    assert 32 == len(secret.shared_secret)


def test_a_key_that_opens_nothing() -> None:
    """Without the usage decrypt there is no twin, whatever is said of Open."""
    with hsm_with("effect: deny, match: {operations: [Open]}") as gateway:
        key = made(gateway, KEM, "encapsulate", "decapsulate")
        operator = gateway.act_as(caller(Role.OPERATOR))
        ours = operator.execute(ops.Encapsulate(key_id=key))
        theirs = operator.execute(
            ops.Decapsulate(key_id=key, ciphertext=ours.ciphertext)
        )

    assert ours.shared_secret == theirs.shared_secret


def test_a_rule_on_one_key_covers_the_store() -> None:
    """Who may not accept a key as it is accepts no store, which is all keys."""
    with hsm_with("effect: deny, match: {operations: [RecoverKey]}") as gateway:
        assert "r0" == denied_by(gateway, ops.RecoverStore(reason="x"))


@pytest.mark.parametrize("usage", CREATED_WITH)
def test_a_rule_on_a_use_covers_the_export(usage: str) -> None:
    """A key does outside what it does here: whoever may not do that exports it not."""
    for kind in ALL_USAGES[usage].split():
        with hsm_with(
            f"effect: deny, match: {{operations: [{kind}], usages: [{usage}]}}"
        ) as gateway:
            key = made(gateway, CREATED_WITH[usage], usage, exportable=True)
            wrapping = made(gateway, "AES-256-KW", "wrap")
            export = ops.ExportKey(key_id=key, wrapping_key_id=wrapping)

            assert "r0" == denied_by(gateway, export)


def test_an_export_needs_no_grant_of_use() -> None:
    """An Administrator exports what they may not use."""
    with hsm_with() as gateway:
        key = made(gateway, "Ed25519", exportable=True)
        wrapping = made(gateway, "AES-256-KW", "wrap")
        administrator = gateway.act_as(caller(Role.ADMINISTRATOR))

        wrapped = administrator.execute(
            ops.ExportKey(key_id=key, wrapping_key_id=wrapping)
        )

    assert key == wrapped.key_id


@pytest.mark.parametrize(
    ("grants", "kind", "usages", "is_allowed"),
    [
        ("[describe, SignBatch]", ops.SignBatch, ("sign",), False),
        ("[describe, Sign, SignBatch]", ops.SignBatch, ("sign",), True),
        ("[describe, Decapsulate]", ops.Decapsulate, ("decapsulate", "decrypt"), False),
        ("[describe, Decapsulate]", ops.Decapsulate, ("decapsulate",), True),
        ("[Decapsulate, Open]", ops.Decapsulate, ("decapsulate", "decrypt"), True),
    ],
)
def test_what_is_not_granted(
    grants: str, kind: type[Operation[Any]], usages: tuple[str, ...], is_allowed: bool
) -> None:
    """A caller must be granted the twin, by a role or a rule; else default-deny."""
    allow = "effect: allow, match: {operations: [Sign, Open]}"
    for rules in ([], [allow]):
        with hsm_with(*rules, grants=f"grants: {{Service: {grants}}}\n") as gateway:
            key = made(gateway, KEY_FOR[kind.__name__], *usages)
            service = gateway.act_as(caller(Role.SERVICE))
            found = is_denied(service, sample(kind, key))
            assert (is_allowed or bool(rules)) != found


def test_exceptions() -> None:
    """An exception of the batch excepts no item; one of ExportKey is a decision."""
    batch = "{operations: [SignBatch]}"
    export = "{operations: [ExportKey]}"
    sign = "match: {operations: [Sign]}"
    both = "match: {operations: [Sign, SignBatch]}"
    with hsm_with(f"effect: deny, {both}, except: {batch}") as gateway:
        key = made(gateway, "Ed25519")
        assert "r0" == denied_by(gateway, sample(ops.SignBatch, key))
    with hsm_with(f"effect: deny, {sign}, except: {export}") as gateway:
        key = made(gateway, "Ed25519", exportable=True)
        wrapping = made(gateway, "AES-256-KW", "wrap")
        administrator = gateway.act_as(caller(Role.ADMINISTRATOR))
        administrator.execute(ops.ExportKey(key_id=key, wrapping_key_id=wrapping))
        assert "r0" == denied_by(gateway, sample(ops.Sign, key))


@pytest.mark.parametrize("match", ["[Sign]", "[Sign, ExportKey]"])
@pytest.mark.parametrize(
    ("condition", "is_free"),
    [
        ("principals: [backup]", False),
        ("principals: [bob]", True),
        ("tags: [other]", False),
        ("tags: [release]", True),
        ("time: {not_after: '2000-01-01T00:00:00Z'}", False),
        ("roles: [Administrator]", True),
    ],
)
def test_an_exception_of_export_with_a_condition(
    match: str, condition: str, *, is_free: bool
) -> None:
    """It frees the export where all of its conditions hold, and nowhere else."""
    with hsm_with(
        f"effect: deny, match: {{operations: {match}, tags: [release]}}, "
        f"except: {{operations: [ExportKey], {condition}}}"
    ) as gateway:
        key = made(gateway, "Ed25519", exportable=True, tags=("release",))
        wrapping = made(gateway, "AES-256-KW", "wrap")
        export = ops.ExportKey(key_id=key, wrapping_key_id=wrapping)
        hsm = gateway.act_as(caller(Role.ADMINISTRATOR, principal="bob"))

        assert is_free != is_denied(hsm, export)
        asked = ops.ExplainPolicy(
            operation="ExportKey",
            principal="bob",
            roles=(Role.ADMINISTRATOR,),
            key_id=key,
            other_key_ids=(wrapping,),
        )
        said = gateway.act_as(caller()).execute(asked)
    assert is_free == (said.outcome is PolicyOutcome.ALLOW)


def test_explained() -> None:
    """An explanation names the operations, and the one that each rule is about."""
    with hsm_with("effect: deny, match: {operations: [Open]}") as gateway:
        both = made(gateway, KEM)
        raw = made(gateway, KEM, "encapsulate", "decapsulate")

        def explained(key: str, role: Role) -> ops.PolicyExplanation:
            question = ops.ExplainPolicy(
                operation="Decapsulate", principal="bob", roles=(role,), key_id=key
            )
            return gateway.act_as(caller()).execute(question)

        denied = explained(both, Role.OPERATOR)
        free = explained(raw, Role.OPERATOR)

    assert (PolicyOutcome.DENY, "r0") == (denied.outcome, denied.rule)
    assert ("Decapsulate", "Open") == denied.decided_as
    assert ("Decapsulate",) == free.decided_as
    assert PolicyOutcome.ALLOW is free.outcome
    assert [("r0", "Open", True, ())] == [
        (rule.name, rule.operation, rule.holds, rule.missing) for rule in denied.rules
    ]
    assert [("r0", False, ("usages",))] == [
        (rule.name, rule.holds, rule.missing) for rule in free.rules
    ]


def test_an_explanation_names_the_grant_that_is_missing() -> None:
    """Not the operation that is granted, but the twin that is not."""
    with hsm_with(grants="grants: {Service: [SignBatch]}\n") as gateway:
        key = made(gateway, "Ed25519")
        question = ops.ExplainPolicy(
            operation="SignBatch", principal="s", roles=(Role.SERVICE,), key_id=key
        )
        found = gateway.act_as(caller()).execute(question)

    assert ("Sign requires one of these roles: Operator.",) == found.needed


def test_replayed() -> None:
    """A policy that is tried says of a recorded batch what it says of its items."""
    with hsm_with() as gateway:
        key = made(gateway, "Ed25519")
        gateway.act_as(caller()).execute(sample(ops.SignBatch, key))
        kem = made(gateway, KEM)
        gateway.act_as(caller()).execute(decapsulation(gateway, kem))
        events = events_of(gateway)
    rule = "{name: no, effect: deny, match: {operations: [Sign, Open]}}"
    tried = RuleEngine(
        parse_policy(f"version: 1\nextends: default\nrules:\n  - {rule}\n")
    )

    changes = [c for c in (change_of(event, tried) for event in events) if c]

    assert ["SignBatch", "Decapsulate"] == [change.operation for change in changes]
    assert {"no"} == {change.after_rule for change in changes}


def test_a_key_that_unwraps_reads_nothing_raw() -> None:
    """No key has both purposes, so that unwrapping has no twin."""
    with hsm_with() as gateway:
        for algorithm, usage in ((KEM, "decapsulate"), ("RSA-3072", "decrypt")):
            with pytest.raises(errors.HSMError, match="wrap and unwrap"):
                made(gateway, algorithm, "unwrap", usage)
