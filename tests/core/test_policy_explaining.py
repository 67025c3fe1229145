# SPDX-License-Identifier: MIT
"""What is explained of a request is what is decided of it, whatever the request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.policy.engine import RuleEngine, decide_on
from hsm_core._internal.policy.explaining import explain, was_decided
from hsm_core._internal.policy.facts import asked_of, joined
from hsm_core.factory import OpenHSM
from hsm_core.model import AuditEvent, Caller, PolicyOutcome, Role
from hsm_core.operations import Operation
from hsm_core.policies import parse_policy
from hsm_core.protocols import Decision, KeyFacts
from hsm_core.session import Session
from hsm_core.settings import KeyStoreKind, Settings
from hsm_core.testing import caller, memory_hsm
from tests.core.test_policy_engine import (
    CALLERS,
    KEYS,
    NOON,
    RULES,
    SIGN,
    engine,
    person,
)
from tests.core.test_policy_engine import key as facts_of
from tests.core.test_roles import sample
from tests.self_tests import open_tested

KINDS = [kind for kind in ops.OPERATIONS if kind is not ops.SelfTest]
RULED = """version: 1
extends: default
rules:
  - {name: weak, effect: deny, match: {operations: [ExportKey], tags: [weak]}}
  - {name: made, effect: require-approval, match: {operations: [CreateKey], tags: [x]}}
  - {name: far, effect: deny, match: {networks: [192.0.2.0/24]}}
  - {name: mine, effect: allow, match: {operations: [DestroyKey], owners: [bob]}}
"""


def explained_as(operation: Operation[Any], who: Caller) -> ops.ExplainPolicy:
    """Return the question what would be decided of an operation."""
    taken = ("algorithm", "name", "owner", "tags", "usages")
    is_about_facts = isinstance(
        operation, ops.CreateKey | ops.ImportKey | ops.DeriveKey | ops.UpdateKey
    )
    facts = {
        name: getattr(operation, name)
        for name in taken
        if is_about_facts and getattr(operation, name, None) is not None
    }
    return ops.ExplainPolicy(
        operation=type(operation).__name__,
        principal=who.principal,
        roles=tuple(who.roles),
        source_address=who.source_address,
        key_id=_about(operation),
        other_key_ids=tuple(getattr(operation, f) for f in operation.other_keys),
        **facts,
    )


def _about(operation: Operation[Any]) -> str:
    keyless = (
        *(ops.ListApprovals, ops.ListAuditEvents, ops.ExplainPolicy),
        ops.RecoverKey,
    )
    return "" if isinstance(operation, keyless) else getattr(operation, "key_id", "")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[OpenHSM]:
    """Give an HSM with rules of each effect."""
    path = tmp_path / "policy.yaml"
    path.write_text(RULED)
    settings = Settings(
        key_store=KeyStoreKind.MEMORY,
        audit_log=tmp_path / "audit.log",
        approval_dir=tmp_path / "approvals",
        policy_config=path,
    )
    with open_tested(settings) as hsm:
        yield hsm


def test_every_kind_of_request(opened: OpenHSM) -> None:
    """The rule that is explained before is the one that stands in the trail after."""
    admin = Session(opened.act_as(caller(principal="ann")))
    dual = admin.create_key("aes256kw", tags=("dual", "weak")).key_id
    plain = admin.update(admin.create_key("aes256kw").key_id, owner="bob").key_id
    asked = [sample(kind, key) for kind in KINDS for key in (dual, plain)]
    asked += [
        ops.UpdateKey(key_id=dual, tags=()),
        ops.UpdateKey(key_id=dual, tags=("dual",)),
        ops.UpdateKey(key_id=plain, owner="carl"),
        ops.UpdateKey(key_id=plain, tags=("x",), name="named"),
        ops.CreateKey(algorithm="ml-dsa-87"),
        ops.CreateKey(algorithm="ed25519", tags=("x",)),
        ops.ExportKey(key_id=plain, wrapping_key_id=dual),
    ]
    said: dict[str, ops.PolicyExplanation] = {}
    people = [(role, "") for role in Role] + [(Role.ADMINISTRATOR, "192.0.2.1")]
    for role, address in people:
        for number, operation in enumerate(asked):
            who = Caller(
                principal="bob",
                roles=frozenset({role}),
                source_address=address,
                request_id=f"{role}-{address}-{number}",
            )
            try:
                question = explained_as(operation, who)
                said[who.request_id] = opened.act_as(caller()).execute(question)
            except errors.KeyNotFoundError:
                continue  # It was destroyed, by a request that is compared.
            with suppress(errors.HSMError):
                opened.act_as(who).execute(operation)

    decided = [e for e in _trail(admin, opened) if was_decided(e)]
    compared = [e for e in decided if e.request_id in said]

    for event in compared:
        it = said[event.request_id]
        assert (event.rule, event.demands) == (it.rule, it.demands), event
    changing = {k.__name__ for k in KINDS if k.effect is not ops.Effect.READ}
    assert changing <= {event.kind for event in compared}


def _trail(admin: Session, opened: OpenHSM) -> list[AuditEvent]:
    end = admin.verify_audit().head_seq
    hsm, found = opened.act_as(caller(principal="ann")), list[AuditEvent]()
    while len(found) <= end:
        page = hsm.execute(
            ops.ListAuditEvents(ascending=True, start_seq=len(found), limit=1000)
        )
        found += [entry.event for entry in page.items]
    return found


CHANGES = st.builds(
    lambda name, owner, tags: ops.UpdateKey(
        key_id="k", name=name, owner=owner, tags=tags
    ),
    st.sampled_from([None, "ci-one", "other"]),
    st.sampled_from([None, "alice", "bob"]),
    st.sampled_from([None, (), ("prod",), ("dual", "prod")]),
)
MADE = st.builds(
    lambda algorithm, tags, owner: ops.CreateKey(
        algorithm=algorithm, tags=tags, owner=owner
    ),
    st.sampled_from(["Ed25519", "ML-DSA-87", "AES-256-GCM"]),
    st.sampled_from([(), ("prod",)]),
    st.sampled_from([None, "alice"]),
)
ANY = st.one_of(CHANGES, MADE, st.sampled_from([sample(kind, "k") for kind in KINDS]))


@given(RULES, CALLERS, st.lists(KEYS, max_size=2), ANY)
def test_explained_is_decided(
    rules: list[str], who: Caller, keys: list[KeyFacts], operation: Operation[Any]
) -> None:
    """For any policy, caller, keys and operation, it is the pipeline's own decision."""
    ruled = engine(*rules)
    about: list[KeyFacts | None] = [*keys] or [None]

    said = explain(ruled, asked_of(operation), who, about, NOON)

    expected = _decided(ruled, operation, who, about)
    assert (expected.rule, expected.approvals) == (said.rule, said.demands)
    assert expected.allowed == (said.outcome.value != "deny")
    assert bool(said.needed) == (said.outcome.value != "allow")


def _decided(
    ruled: RuleEngine,
    operation: Operation[Any],
    who: Caller,
    keys: list[KeyFacts | None],
) -> Decision:
    decisions = []
    for key in keys:
        decisions.append(decide_on(ruled, operation, who, key, NOON))
        if not decisions[-1].allowed:
            return decisions[-1]
    return joined(decisions)


KEM = "[describe, Decapsulate]"
DERIVE, IMPORT, EXPORT, SIGNING, LISTING = (
    f"match: {{operations: [{kind}], tags: [prod]}}"
    for kind in ("DeriveKey", "ImportKey", "ExportKey", "Sign", "ListKeys")
)
MATTERING = [
    (f"deny, {DERIVE}", "DeriveKey", {}, "other"),
    (f"deny, {IMPORT}", "ImportKey", {"algorithm": "Ed25519"}, "other"),
    (f"require-approval, {EXPORT}", "UpdateKey", {"tags": ("prod",)}, "key_id"),
    ("deny, match: {operations: [Open]}", "Decapsulate", {}, "key_id"),
    ("deny, match: {families: [RSA]}", "CreateKey", {}, "algorithm"),
    # No key is taken that a request doesn't name.
    ("deny, match: {tags: [prod]}", "RecoverKey", {"key_id": "k"}, "k"),
    ("deny, match: {tags: [x]}", "ListApprovals", {"key_id": "k"}, "k"),
    ("deny, match: {tags: [x]}", "ListKeys", {"key_id": "k"}, "k"),
    ("deny, match: {tags: [x]}", "Sign", {"other_key_ids": ("k",)}, "o"),
]


@pytest.mark.parametrize(("rule", "kind", "facts", "field"), MATTERING)
def test_what_must_be_named(
    rule: str, kind: str, facts: dict[str, Any], field: str
) -> None:
    """Facts that decide are asked for, and no others are taken."""
    with pytest.raises(errors.InvalidInputError) as caught:
        _asked(rule, kind, facts)

    assert str(caught.value.facts["field"]).startswith(field)


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        (f"deny, {SIGNING}, except: {{principals: [bob]}}", "Sign"),
        (f"allow, {SIGNING}", "Sign"),
        (f"deny, {LISTING}", "ListKeys"),
        ("deny, match: {tags: [prod]}", "RecoverKey"),
        ("deny, match: {tags: [prod], principals: [eve]}", "Sign"),
    ],
)
def test_what_does_not_depend_on_the_key_needs_none(rule: str, kind: str) -> None:
    """It is explained without one."""
    assert PolicyOutcome.ALLOW is _asked(rule, kind, {}).outcome


def _asked(rule: str, kind: str, facts: dict[str, Any]) -> ops.PolicyExplanation:
    policy = f"version: 1\nextends: default\nrules:\n  - {{name: r0, effect: {rule}}}\n"
    roles = (Role.ADMINISTRATOR, Role.OPERATOR)
    with memory_hsm(policy=parse_policy(policy)) as gateway:
        return gateway.act_as(caller()).execute(
            ops.ExplainPolicy(operation=kind, principal="bob", roles=roles, **facts)
        )


def test_a_grant_that_the_key_decides() -> None:
    """Whoever may decapsulate and not open must say with which key."""
    policy = f"version: 1\nextends: default\ngrants: {{Service: {KEM}}}\n"
    question = ops.ExplainPolicy(
        operation="Decapsulate", principal="s", roles=(Role.SERVICE,)
    )
    with memory_hsm(policy=parse_policy(policy)) as gateway:
        with pytest.raises(errors.InvalidInputError, match="grant of Open"):
            gateway.act_as(caller()).execute(question)


def _explained(
    rules: list[str], who: Caller, asked: Operation[Any], *keys: KeyFacts
) -> ops.PolicyExplanation:
    return explain(engine(*rules), asked_of(asked), who, keys or (None,), NOON)


@pytest.mark.parametrize(
    ("demand", "words"),
    [
        ("", "Approval by another person, within 3600 seconds (r0)."),
        (
            ", approval: {quorum: 3, ttl_seconds: 60, signed: true}",
            "Approval by 3 other people, signed, within 60 seconds (r0).",
        ),
        (
            ", approval: {roles: [Auditor, Operator], uses: 2}",
            "Approval by another person with a role of Auditor, Operator, "
            "within 3600 seconds, valid for up to 2 uses (r0).",
        ),
        (
            ", approval: {quorum: 2, distinct_roles: [Auditor, Operator]}",
            "Approval by 2 other people, including one each as Auditor and "
            "Operator, within 3600 seconds (r0).",
        ),
    ],
)
def test_whose_consent_is_needed(demand: str, words: str) -> None:
    """How many must agree, as what, how, how soon and for how often."""
    said = _explained([f"effect: require-approval{demand}"], person(), SIGN, facts_of())

    assert (words,) == said.needed


def test_what_is_needed_where_nothing_allows() -> None:
    """The roles that may; of what a rule denies, that nothing helps."""
    auditor = person("eve", Role.AUDITOR)
    nobody = Caller(principal="eve", roles=frozenset())
    deny = "effect: deny, match: {tags: [prod]}"

    assert ("Sign requires one of these roles: Operator, Service.",) == _explained(
        [], auditor, SIGN, facts_of()
    ).needed
    assert (
        "The rule r0 denies it. No other rule or role overrides a denial.",
    ) == _explained([deny], person(), SIGN, facts_of()).needed
    assert () == _explained([], person(), SIGN, facts_of()).needed
    assert (
        _explained([], nobody, SIGN, facts_of())
        .needed[0]
        .startswith("Sign requires one of these roles")
    )


def test_what_an_update_would_give() -> None:
    """Nobody helps themselves to a right by another label; which one is said."""
    rules = ["effect: deny, match: {operations: [ExportKey], tags: [prod]}"]
    change = ops.UpdateKey(key_id="k", tags=())

    said = _explained(rules, person("bob", Role.ADMINISTRATOR), change, facts_of())

    assert ("deny", "update-gives:ExportKey") == (said.outcome.value, said.rule)
    assert said.needed == ("The change would grant the caller ExportKey on the key.",)


@pytest.mark.parametrize(
    ("rule", "missing"),
    [
        ("match: {tags: [x]}", ["tags"]),
        (
            "match: {owners: [x], key_names: [x], usages: [encrypt]}",
            ["usages", "owners", "key_names"],
        ),
        ("match: {algorithms: [ml-dsa-65]}", ["algorithms"]),
        ("match: {roles: [Auditor], networks: [10.0.0.0/8]}", ["roles", "networks"]),
        ("match: {tags: [prod]}, except: {principals: [bob]}", ["except"]),
        ("match: {time: {from: 01:00, to: 02:00}}", ["time"]),
        ("match: {time: {from: 01:00, to: 02:00}, tags: [x]}", ["time", "tags"]),
        ("match: {principals: [bob], roles: [Auditor]}", ["roles"]),
        ("match: {tags: [prod], owners: [x]}", ["owners"]),
        ("match: {tags: [prod]}", []),
    ],
)
def test_what_keeps_a_rule_from_holding(rule: str, missing: list[str]) -> None:
    """Each condition that is not fulfilled is named, and no other."""
    (found,) = _explained([f"effect: deny, {rule}"], person(), SIGN, facts_of()).rules

    assert (tuple(missing), not missing) == (found.missing, found.holds)
    assert ("r0", "deny") == (found.name, found.effect)


def test_a_rule_about_keys_where_none_is_named() -> None:
    """It is the key that is missing."""
    (found,) = _explained(["effect: deny, match: {tags: [prod]}"], person(), SIGN).rules

    assert (False, ("key",)) == (found.holds, found.missing)


@pytest.mark.parametrize(("effect", "holds"), [("allow", False), ("deny", True)])
def test_a_rule_about_one_of_two_keys(effect: str, holds: bool) -> None:
    """One key is enough to deny, and not enough to allow."""
    rule = f"effect: {effect}, match: {{operations: [ExportKey], tags: [prod]}}"
    export = ops.ExportKey(key_id="k", wrapping_key_id="w")
    who = person("eve", Role.ADMINISTRATOR)

    said = _explained([rule], who, export, facts_of(), facts_of(tags=()))

    assert holds == {found.name: found.holds for found in said.rules}["r0"]


PINNED = "AB:" * 31 + "AB"


@pytest.mark.parametrize("written", [PINNED, PINNED.replace(":", "").lower()])
def test_a_fingerprint_is_taken_as_in_the_file(written: str) -> None:
    """Colons and case make no other certificate, in a question as in a rule."""
    said = _asked(
        f'deny, match: {{certificates: ["{PINNED}"]}}',
        "GenerateRandom",
        {"certificate_sha256": written},
    )

    assert ("deny", "r0") == (said.outcome, said.rule)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source_address", "192.0.2.1:443"),
        ("source_address", "192.0.2.0/24"),
        ("source_address", "192.0.2.300"),
        ("certificate_sha256", PINNED[:-1]),
        ("certificate_sha256", "zz"),
    ],
)
def test_what_no_caller_could_have_is_refused(field: str, value: str) -> None:
    """No answer is given about a caller whom no rule could match."""
    with pytest.raises(errors.InvalidInputError, match=f"{field} must be") as caught:
        _asked(
            "deny, match: {networks: [192.0.2.0/24]}", "GenerateRandom", {field: value}
        )

    assert field == caught.value.facts["field"]
