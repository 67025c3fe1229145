# SPDX-License-Identifier: MIT
"""What a policy says: deny beats approval beats allow, whatever the order of rules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.policy.engine import RuleEngine, decide_on
from hsm_core._internal.policy.facts import (
    SystemPrincipal,
    outcome_of_rule,
    system_caller,
)
from hsm_core.algorithms import KeyUsage
from hsm_core.model import Caller, KeyState, PolicyOutcome, Role
from hsm_core.operations import Operation
from hsm_core.policies import parse_policy
from hsm_core.protocols import Decision, KeyFacts
from hsm_core.testing import caller, memory_hsm
from tests.core.test_roles import sample

O = PolicyOutcome  # noqa: E741 (read in tables)
SIGN = ops.Sign(key_id="k", message=b"")
NOON = int(datetime(2026, 7, 1, 12, tzinfo=UTC).timestamp()) * 1_000_000  # a Wednesday


def key(
    *,
    algorithm: str = "Ed25519",
    name: str = "ci-one",
    owner: str = "alice",
    tags: tuple[str, ...] = ("prod",),
    usages: tuple[str, ...] = ("sign", "verify"),
) -> KeyFacts:
    """Return the facts of a key."""
    return KeyFacts(
        key_id="k",
        algorithm=algorithm,
        state=KeyState.ACTIVE,
        name=name,
        owner=owner,
        tags=frozenset(tags),
        usages=frozenset(usages),
    )


def person(name: str = "bob", *roles: Role, **facts: Any) -> Caller:
    """Return somebody, an Operator by default."""
    return Caller(principal=name, roles=frozenset(roles or {Role.OPERATOR}), **facts)


def engine(*rules: str, order: Sequence[int] | None = None) -> RuleEngine:
    """Return an engine of the default policy and these rules, each in flow style."""
    places = range(len(rules)) if order is None else order
    lines = [f"  - {{name: r{n}, {rules[n]}}}\n" for n in places]
    text = "version: 1\nextends: default\n" + ("rules:\n" if lines else "")
    return RuleEngine(parse_policy(text + "".join(lines)))


def outcome(
    rules: RuleEngine,
    who: Caller,
    facts: KeyFacts | None = None,
    operation: Operation[Any] = SIGN,
    at: int = NOON,
) -> PolicyOutcome:
    """Return what a policy says."""
    decision = rules.decide(operation, who, facts or key(), at=at)
    found = outcome_of_rule(decision.rule)
    assert (found is not O.DENY) == decision.allowed
    assert (found is O.APPROVAL) == bool(decision.approvals)
    return found


CONDITIONS = {
    "operations: [Sign]": True,
    "operations: [use]": True,
    "operations: [Verify]": False,
    "algorithms: [ed25519]": True,
    "algorithms: [ml-dsa-65, Ed25519]": True,
    "algorithms: [ml-dsa-65]": False,
    "families: [EdDSA]": True,
    "families: [RSA]": False,
    "categories: [0]": True,
    "categories: [5]": False,
    "facts: [signature]": True,
    "facts: [pqc, kem]": False,
    "usages: [sign]": True,
    "usages: [encrypt]": False,
    "tags: [x, prod]": True,
    "tags: [Prod]": False,
    "owners: [Alice]": True,
    "owners: [self]": False,
    "owners: [self, alice]": True,
    "key_names: ['ci-*']": True,
    "key_names: [ci-one]": True,
    "key_names: ['cd-*', ci]": False,
    "key_names: ['*']": True,
    "principals: [BOB]": True,
    "principals: ['bo*']": True,
    "principals: ['bob ', x]": True,
    "principals: [bo]": False,
    "roles: [Operator, Auditor]": True,
    "roles: [Auditor]": False,
    f"certificates: ['{'AB' * 32}']": True,
    f"certificates: ['{'ac' * 32}']": False,
    "certificate_subjects: ['CN=bob,O=X']": True,
    "certificate_subjects: ['CN=bob*']": True,
    "certificate_subjects: ['CN=bob', 'O=X*']": False,
    "certificate_names: ['dns:b.example']": True,
    "certificate_names: ['email:*', 'uri:spiffe://x/*']": True,
    "certificate_names: ['dns:example', 'ip:*']": False,
    "networks: [10.0.0.0/8]": True,
    "networks: ['::ffff:10.0.0.0/104']": True,
    "networks: [192.168.0.0/16, '::/0']": False,
    "time: {from: 08:00, to: 18:00}": True,
    "time: {from: 22:00, to: 06:00}": False,
    "time: {days: [wed]}": True,
    "time: {days: [sat, sun]}": False,
    "time: {not_before: 2026-07-01T12:00Z}": True,
    "time: {not_after: 2026-07-01T12:00Z}": False,
    "time: {from: 14:00, to: 15:00, zone: Europe/Berlin}": True,
    "roles: [Operator], tags: [other]": False,
    "roles: [Operator], tags: [prod]": True,
}


@pytest.mark.parametrize(("match", "holds"), CONDITIONS.items())
def test_conditions(match: str, holds: bool) -> None:
    """All conditions of a rule must hold; of each, one value is enough."""
    rules = engine(f"effect: deny, match: {{{match}}}")
    reverse = engine(f"effect: deny, except: {{{match}}}")
    who = person(
        certificate_sha256="ab" * 32,
        certificate_subject="CN=bob,O=X",
        certificate_names=("dns:b.example", "uri:spiffe://x/b"),
        source_address="::ffff:10.1.2.3",
    )

    assert holds == (outcome(rules, who) is O.DENY)
    assert holds != (outcome(reverse, who) is O.DENY)


@pytest.mark.parametrize(
    "match", ["certificate_subjects: ['CN=*']", "certificate_names: ['dns:*']"]
)
def test_without_a_certificate_no_rule_about_one_holds(match: str) -> None:
    """Not even one that is content with any."""
    rules = engine(f"effect: deny, match: {{{match}}}")

    assert outcome(rules, person()) is not O.DENY


def test_composites_are_what_their_components_are() -> None:
    """A rule about an algorithm or family holds for a hybrid that has it."""
    hybrid = key(algorithm="MLDSA65-Ed25519-SHA512")

    for match in ("algorithms: [ml-dsa-65]", "families: [ML-DSA]", "families: [EdDSA]"):
        assert O.DENY is outcome(
            engine(f"effect: deny, match: {{{match}}}"), person(), hybrid
        )


@pytest.mark.parametrize(
    ("utc", "inside"),
    [
        (datetime(2026, 3, 28, 8, 30, tzinfo=UTC), True),  # 09:30 before the change
        (datetime(2026, 3, 29, 7, 30, tzinfo=UTC), True),  # 09:30 after it
        (datetime(2026, 3, 29, 8, 30, tzinfo=UTC), False),
        (datetime(2026, 10, 24, 7, 30, tzinfo=UTC), True),
        (datetime(2026, 10, 25, 8, 30, tzinfo=UTC), True),
        (datetime(2026, 10, 25, 7, 30, tzinfo=UTC), False),
    ],
)
def test_daylight_saving(utc: datetime, inside: bool) -> None:
    """The clock on the wall counts, before and after it is put forward."""
    rules = engine(
        "effect: deny, match: {time: {from: 09:00, to: 10:00, zone: Europe/Berlin}}"
    )

    found = outcome(rules, person(), at=int(utc.timestamp()) * 1_000_000)

    assert inside == (found is O.DENY)


def test_a_night_belongs_to_the_day_it_begins_on() -> None:
    """A window of Friday that goes past midnight holds on Saturday morning."""
    rules = engine("effect: deny, match: {time: {days: [fri], from: 22:00, to: 06:00}}")
    hours = [(3, 21), (3, 23), (4, 5), (4, 7), (4, 23), (3, 5)]

    found = [
        outcome(
            rules,
            person(),
            at=int(datetime(2026, 7, d, h, tzinfo=UTC).timestamp()) * 1_000_000,
        )
        is O.DENY
        for d, h in hours
    ]

    assert [False, True, True, False, False, False] == found


NIGHT = "time: {from: 02:00, to: 03:00}"
AS_OPERATOR = f"role:{Role.OPERATOR}"


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        (f"effect: deny, match: {{{NIGHT}}}", "clock:r0"),
        (f"effect: deny, match: {{tags: [prod]}}, except: {{{NIGHT}}}", "clock:r0"),
        (f"effect: require-approval, match: {{{NIGHT}}}", "clock:r0"),
        (f"effect: deny, match: {{{NIGHT}, tags: [prod]}}", "clock:r0"),
        (f"effect: deny, match: {{{NIGHT}}}, except: {{tags: [prod]}}", AS_OPERATOR),
        (f"effect: deny, match: {{{NIGHT}, tags: [other]}}", AS_OPERATOR),
        (f"effect: deny, match: {{{NIGHT}, operations: [ComputeMac]}}", AS_OPERATOR),
        (f"effect: allow, match: {{{NIGHT}}}", AS_OPERATOR),
    ],
)
def test_without_the_time(rule: str, found: str) -> None:
    """Where nobody knows the time, a timed rule denies what it is about at any time."""
    rules = engine(rule).without_time()

    decision = rules.decide(SIGN, person(), key(), at=NOON)

    assert found == decision.rule
    assert found.startswith("role:") is decision.allowed


def test_without_the_time_nothing_is_allowed_by_it() -> None:
    """What a timed rule alone would allow is denied, and the rule is named."""
    rules = engine(f"effect: allow, match: {{{NIGHT}, operations: [Sign]}}")
    someone = person("eve", Role.AUDITOR)

    found = rules.without_time()

    assert "clock:r0" == found.decide(SIGN, someone, key(), at=NOON).rule
    assert "default-deny" == rules.decide(SIGN, someone, key(), at=NOON).rule
    assert rules.policy_hash == found.policy_hash


def test_a_policy_without_windows_needs_no_time() -> None:
    """It is the same engine."""
    rules = engine("effect: deny, match: {operations: [ComputeMac]}")

    assert rules is rules.without_time()


@pytest.mark.parametrize("at", [-(2**62), -1, 0, 2**62, 2**63])
def test_any_instant(at: int) -> None:
    """No clock is so wrong that the policy can't speak."""
    rules = engine("effect: deny, match: {time: {from: 01:00, zone: Asia/Tokyo}}")

    assert outcome(rules, person(), at=at) in {O.ALLOW, O.DENY}


def test_an_allowance_needs_every_side() -> None:
    """Who may derive to a name may not derive to it from any key."""
    rules = engine(
        "effect: allow, match: {operations: [DeriveKey], key_names: ['ci-*']}"
    )
    derive = ops.DeriveKey(algorithm="AES-256-GCM", base_key_id="k", name="ci-new")
    service = person("x", Role.SERVICE)

    assert O.ALLOW is outcome(rules, service, key(), derive)
    assert O.DENY is outcome(rules, service, key(name="root"), derive)


@pytest.mark.parametrize(
    "change", [{"name": "cd-two"}, {"owner": "bob"}, {"tags": ()}, {"description": "d"}]
)
def test_an_update_has_two_sides(change: dict[str, Any]) -> None:
    """Who may change keys of a kind may change none into one of another kind."""
    rules = engine(
        "effect: allow, match: {operations: [UpdateKey], key_names: ['ci-*'], "
        "owners: [alice], tags: [prod]}"
    )
    update = ops.UpdateKey(key_id="k", **change)

    found = outcome(rules, person("x", Role.SERVICE), key(), update)

    assert (found is O.ALLOW) == ("description" in change)


LETTERED = [f"{letter}*" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]


@pytest.mark.parametrize(
    "match",
    ["owners: [bob]", "usages: [sign]", "usages: [verify]", "algorithms: [ed25519]"],
)
def test_a_key_to_be_made_has_the_usual_facts(match: str) -> None:
    """Who makes it owns it, and it may be used for what is usual; it has no name."""
    create = ops.CreateKey(algorithm="Ed25519")
    named = engine(f"effect: deny, match: {{key_names: {LETTERED}}}")
    rules = engine(f"effect: deny, match: {{{match}}}")

    assert not rules.decide(create, person(), None, at=NOON).allowed
    assert named.decide(create, person(), None, at=NOON).allowed


@pytest.mark.parametrize(
    ("usages", "denied"), [((), True), (("encrypt",), False), (("decrypt",), True)]
)
def test_a_key_to_be_made_has_the_usages_asked_for(
    usages: tuple[str, ...], denied: bool
) -> None:
    """A rule about a usage holds where the new key would have it."""
    rules = engine("effect: deny, match: {usages: [decrypt]}")
    create = ops.CreateKey(
        algorithm="AES-256-GCM", usages=tuple(KeyUsage(usage) for usage in usages)
    )

    assert denied != rules.decide(create, person(), None, at=NOON).allowed


def test_an_update_frees_no_key_while_an_exception_holds() -> None:
    """A rule that holds at other times is one that the new tags would escape."""
    rules = engine(
        "effect: require-approval, match: {operations: [Sign], tags: [prod]}, "
        "except: {time: {from: 08:00, to: 18:00}}"
    )
    update = ops.UpdateKey(key_id="k", tags=())

    decision = decide_on(rules, update, caller(), key(), NOON)

    assert O.ALLOW is outcome(rules, person(), key(), SIGN)
    assert decision.allowed
    assert decision.approvals


@pytest.mark.parametrize(
    ("exception", "found"),
    [("", O.DENY), ("ExportKey", O.ALLOW), ("Decrypt", O.ALLOW), ("Sign", O.DENY)],
)
def test_an_exception_for_exports_holds_for_what_they_yield(
    exception: str, found: PolicyOutcome
) -> None:
    """A rule about a use denies exports too, unless it excepts one or the other."""
    rule = "effect: deny, match: {operations: [Decrypt]}"
    rules = engine(
        f"{rule}, except: {{operations: [{exception}]}}" if exception else rule
    )
    export = ops.ExportKey(key_id="k", wrapping_key_id="w")
    secret = key(algorithm="AES-256-GCM", usages=("encrypt", "decrypt"))

    assert found is outcome(rules, person("eve", Role.ADMINISTRATOR), secret, export)


@pytest.mark.parametrize(
    ("granted", "found"), [("SignBatch", O.DENY), ("Sign, SignBatch", O.ALLOW)]
)
def test_a_batch_needs_the_grant_of_its_items(
    granted: str, found: PolicyOutcome
) -> None:
    """Whoever may not sign may not sign many either."""
    text = f"version: 1\ngrants:\n  Operator: [DescribeKey, {granted}]\n"
    rules = RuleEngine(parse_policy(text))

    decision = rules.decide(
        ops.SignBatch(key_id="k", items=(ops.SignItem(message=b""),)),
        *(person(), key()),
        at=NOON,
    )

    assert (found is O.ALLOW) == decision.allowed


def test_a_revoked_version_serves_what_the_policy_lists() -> None:
    """And nothing else."""
    rules = RuleEngine(
        parse_policy("version: 1\nextends: default\nrevoked_uses: [Verify]\n")
    )

    assert rules.allows_revoked("Verify")
    assert not rules.allows_revoked("VerifyMac")


def test_an_administrator_has_no_way_round() -> None:
    """A key with the tag dual is not destroyed by an Administrator alone (O-04)."""
    with memory_hsm() as gateway:
        administrator = gateway.act_as(caller(Role.ADMINISTRATOR))
        made = administrator.execute(ops.CreateKey(algorithm="ed25519", tags=("dual",)))
        for operation in (
            ops.DestroyKey(key_id=made.key_id),
            ops.UpdateKey(key_id=made.key_id, tags=()),
        ):
            for _ in range(2):
                with pytest.raises(errors.ApprovalRequiredError):
                    administrator.execute(operation)
        found = administrator.execute(ops.DescribeKey(key_id=made.key_id))

    assert (KeyState.ACTIVE, ("dual",)) == (found.state, found.tags)


def test_no_purge_without_approval() -> None:
    """A policy that leaves the rule out, or has none at all, is asked for it too."""
    scheduler = system_caller(SystemPrincipal.RETENTION)
    for text in ("version: 1", "version: 1\nextends: strict"):
        rules = RuleEngine(parse_policy(text))
        for kind in ("PurgeVersion", "AllowPurges"):
            decision = rules.judge(kind, scheduler, (key(),), NOON)
            (demand,) = decision.approvals
            assert {Role.OPERATOR, Role.AUDITOR} == set(demand.distinct_roles)


def test_the_hsm_comes_from_nowhere() -> None:
    """A rule about who asks keeps no scheduler from its work, unless it names it."""
    scheduler = system_caller(SystemPrincipal.ROTATION)
    rotate = ops.RotateKey(key_id="k")
    away = engine("effect: deny, except: {networks: [10.0.0.0/8]}")
    named = engine("effect: deny, match: {principals: [system.rotation]}")
    asked = engine("effect: require-approval, match: {operations: [RotateKey]}")

    assert O.ALLOW is outcome(away, scheduler, key(), rotate)
    assert O.DENY is outcome(named, scheduler, key(), rotate)
    assert O.APPROVAL is outcome(asked, scheduler, key(), rotate)


def test_what_is_hidden_looks_missing() -> None:
    """A key that a rule hides gives the same answers as one that is not there."""
    hidden = engine(
        "effect: deny, match: {operations: [describe, use], tags: [prod]}",
        "effect: deny, match: {operations: [Verify]}",
    )

    def told(facts: KeyFacts | None, operation: Operation[Any]) -> tuple[bool, bool]:
        decision: Decision = hidden.decide(operation, person(), facts, at=0)
        return decision.allowed, decision.may_describe

    for operation in (SIGN, ops.Verify(key_id="k", message=b"", signature=b"")):
        there, missing = told(key(), operation), told(None, operation)
        # Who is let through to a missing key is told that there is none.
        assert missing == there if not missing[0] else (False, False) == there


_EFFECTS = st.sampled_from(["deny", "require-approval", "allow"])
_MATCHES = st.sampled_from(
    [*CONDITIONS, "operations: [Sign, Verify, DestroyKey]", "operations: [Open, Sign]"]
)
RULES = st.lists(
    st.builds("effect: {}, match: {{{}}}".format, _EFFECTS, _MATCHES), max_size=6
)
CALLERS = st.builds(
    lambda name, role: Caller(
        principal=name, roles=frozenset({role}), source_address="10.1.2.3"
    ),
    st.sampled_from(["alice", "bob", "carol"]),
    st.sampled_from(Role),
)
KEYS = st.builds(
    lambda algorithm, tags, usages: key(algorithm=algorithm, tags=tags, usages=usages),
    st.sampled_from(["Ed25519", "ML-DSA-65", "AES-256-GCM"]),
    st.sampled_from([(), ("prod",), ("other",)]),
    st.sampled_from([("sign", "verify"), ("decapsulate", "decrypt")]),
)
_ASKED = st.sampled_from(
    [
        SIGN,
        ops.DestroyKey(key_id="k"),
        ops.DescribeKey(key_id="k"),
        *(
            sample(kind, "k")
            for kind in (ops.SignBatch, ops.Decapsulate, ops.ExportKey)
        ),
    ]
)


@given(RULES, CALLERS, KEYS, _ASKED, st.randoms())
def test_order_means_nothing(
    rules: list[str], who: Caller, facts: KeyFacts, operation: Any, random: Any
) -> None:
    """The same rules in any order are one policy, and say the same."""
    shuffled = list(range(len(rules)))
    random.shuffle(shuffled)

    one, other = engine(*rules), engine(*rules, order=shuffled)

    assert one.policy_hash == other.policy_hash
    assert one.decide(operation, who, facts, at=NOON) == other.decide(
        operation, who, facts, at=NOON
    )


@given(RULES, _MATCHES, CALLERS, KEYS, _ASKED)
def test_a_denial_more_allows_nothing(
    rules: list[str], match: str, who: Caller, facts: KeyFacts, operation: Any
) -> None:
    """Another deny rule takes away or changes nothing; an approval more only asks."""
    ranks = [O.DENY, O.APPROVAL, O.ALLOW]
    before = ranks.index(outcome(engine(*rules), who, facts, operation))
    for effect in ("deny", "require-approval"):
        more = engine(*rules, f"effect: {effect}, match: {{{match}}}")
        after = outcome(more, who, facts, operation)
        assert ranks.index(after) <= before
