# SPDX-License-Identifier: MIT
"""The trail tried against a policy: nothing false, and nothing left out."""

from __future__ import annotations

import random

import msgspec
import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.keyring.documents import audited_caller
from hsm_core._internal.policy.engine import RuleEngine
from hsm_core._internal.policy.explaining import change_of, decision_on, was_decided
from hsm_core.algorithms import KeyUsage
from hsm_core.model import (
    AuditedCaller,
    AuditedKey,
    AuditEvent,
    Caller,
    Parameters,
    Phase,
    Role,
)
from hsm_core.policies import parse_policy
from hsm_core.session import Session
from hsm_core.settings import PolicyProfile
from hsm_core.testing import caller, memory_hsm
from tests.core.test_roles import sample

DEFAULT = "version: 1\nextends: default\n"


def events_of(gateway: object) -> list[AuditEvent]:
    """Return the whole trail."""
    auditor = gateway.act_as(caller(Role.AUDITOR, principal="ute"))  # type: ignore[attr-defined]
    page = auditor.execute(ops.ListAuditEvents(ascending=True, start_seq=0, limit=1000))
    return [entry.event for entry in page.items]


def changes_of(events: list[AuditEvent], engine: RuleEngine) -> list[ops.PolicyChange]:
    """Return which decisions another policy changes."""
    return [change for event in events if (change := change_of(event, engine))]


def test_every_kind_of_request() -> None:
    """What was decided is what a replay of its record decides, for every kind."""
    asked = [kind for kind in ops.OPERATIONS if kind is not ops.SelfTest]
    with memory_hsm() as gateway:
        admin = gateway.act_as(caller())
        made = admin.execute(ops.CreateKey(algorithm="aes256kw", tags=("dual",)))
        for role in Role:
            hsm = gateway.act_as(caller(role, principal=f"p-{role}"))
            for kind in asked:
                for key in (made.key_id, "missing"):
                    try:
                        hsm.execute(sample(kind, key))
                    except errors.HSMError:
                        continue
        for operation in (
            ops.UpdateKey(key_id=made.key_id, tags=()),
            ops.CreateKey(algorithm="ml-kem-1024"),
            ops.CreateKey(algorithm="ed25519", name="same"),
            ops.CreateKey(algorithm="ed25519", name="same"),
        ):
            for role in (Role.ADMINISTRATOR, Role.OPERATOR):
                try:
                    gateway.act_as(caller(role)).execute(operation)
                except errors.HSMError:
                    continue
        events = events_of(gateway)

    engine = RuleEngine(parse_policy(DEFAULT))
    decided = {event.kind for event in events if was_decided(event)}
    # Reads are recorded where they are refused alone.
    kinds = {kind.__name__ for kind in asked if kind.effect is not ops.Effect.READ}
    assert kinds <= decided
    assert [] == changes_of(events, engine)


MADE = ["algorithms: [aes256gcm]", "owners: [olga]", "key_names: [made]", "tags: [t]"]
WRAPPING = ["algorithms: [aes256kw]", "owners: [otto]", "key_names: [w]", "tags: [x]"]


CERTIFIED = "certificate_subjects: ['CN=o,*'], certificate_names: ['dns:o.example']"
_OLGA = Caller(
    principal="olga",
    roles=frozenset({Role.ADMINISTRATOR, Role.OPERATOR}),
    certificate_subject="CN=o,O=Example",
    certificate_names=("dns:o.example",),
)


@pytest.fixture(scope="module")
def recorded() -> list[AuditEvent]:
    """Give the trail of a key that is made, and one that is exported under another."""
    with memory_hsm() as gateway:
        hsm = gateway.act_as(caller())
        wrapping = hsm.execute(
            ops.CreateKey(
                algorithm="aes256kw",
                usages=(KeyUsage.WRAP,),
                tags=("x",),
                name="w",
                owner="otto",
            )
        )
        hsm.execute(
            ops.CreateKey(
                algorithm="aes256gcm",
                usages=(KeyUsage.ENCRYPT,),
                tags=("t",),
                name="made",
                owner="olga",
            )
        )
        key = hsm.execute(ops.CreateKey(algorithm="ed25519", exportable=True))
        hsm.execute(ops.ExportKey(key_id=key.key_id, wrapping_key_id=wrapping.key_id))
        for names in ((), ("dns:p.example",)):
            other = msgspec.structs.replace(_OLGA, certificate_names=names)
            gateway.act_as(other).execute(ops.Sign(key_id=key.key_id, message=b""))
        gateway.act_as(_OLGA).execute(ops.Sign(key_id=key.key_id, message=b""))
        return events_of(gateway)


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        *(("CreateKey", text) for text in [*MADE, "usages: [encrypt]"]),
        *(("ExportKey", text) for text in [*WRAPPING, "usages: [wrap]"]),
        ("Sign", CERTIFIED),
    ],
)
def test_each_recorded_fact(recorded: list[AuditEvent], kind: str, match: str) -> None:
    """A rule about any one fact of a key, or of a certificate, is replayed."""
    text = f"{{operations: [{kind}], {match}}}"
    rules = DEFAULT + f"rules:\n  - {{name: no, effect: deny, match: {text}}}\n"
    engine = RuleEngine(parse_policy(rules))

    changes = changes_of(recorded, engine)

    assert [kind] == [change.operation for change in changes]


def test_what_a_record_does_not_tell(recorded: list[AuditEvent]) -> None:
    """A role of another release is none, and what is not recorded is not made up."""
    letters = [f"{letter}*" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    named = f"{{operations: [ExportKey], key_names: {letters}}}"
    owned = f"{{operations: [ExportKey], owners: {letters}}}".replace("*", "X")
    ours = "{operations: [ExportKey], algorithms: [ed25519]}"
    exported = next(e for e in recorded if "ExportKey" == e.kind)
    assert exported.caller is not None
    who = msgspec.structs.replace(
        exported.caller, roles=(*exported.caller.roles, "Janitor")
    )
    bare: Parameters = {"wrapping_key_id": "w", "wrapping_key_algorithm": "AES-256-KW"}
    unknown: Parameters = {"wrapping_key_id": "w"}
    service = msgspec.structs.replace(exported.caller, roles=("Service",))

    def decided(parameters: Parameters, who: AuditedCaller, rule: str) -> bool:
        engine = RuleEngine(parse_policy(DEFAULT + f"rules:\n  - {{name: n, {rule}}}"))
        event = msgspec.structs.replace(exported, parameters=parameters)
        return decision_on(event, who, engine).allowed

    for match in (named, owned):
        assert decided(bare, who, f"effect: deny, match: {match}")
    assert decided(unknown, service, f"effect: allow, match: {ours}")
    assert not decided(bare, service, f"effect: allow, match: {ours}")


def _record(seq: int, engine: RuleEngine, rng: random.Random) -> AuditEvent:
    """Return the record of a request that an engine has decided on."""
    who = Caller(
        principal=rng.choice(["alice", "bob", "carol", "dora"]),
        roles=frozenset({rng.choice(list(Role))}),
        source_address=rng.choice(["10.0.0.1", "192.0.2.7", ""]),
    )
    key = AuditedKey(
        algorithm=rng.choice(["Ed25519", "ML-DSA-87", "AES-256-GCM", "ML-KEM-768"]),
        usages=("sign",),
        name=f"key-{seq}",
        owner=rng.choice(["alice", "bob"]),
        tags=rng.choice([(), ("prod",), ("dual",), ("prod", "dual")]),
        state="active",
    )
    kind = rng.choice(
        ["Sign", "Verify", "RotateKey", "DestroyKey", "ExportKey", "RevokeKey"]
    )
    event = AuditEvent(
        format=2, seq=seq, prev="", code="ok",
        time=1_780_000_000_000_000 + seq * 60_000_000,
        phase=rng.choice([Phase.INTENT, Phase.SINGLE]),
        kind=kind, key=key, key_id=f"{seq:08}", caller=audited_caller(who), rule="?",
    )  # fmt: skip
    assert event.caller is not None
    decision = decision_on(event, event.caller, engine)
    return msgspec.structs.replace(
        event, rule=decision.rule, demands=decision.approvals
    )


def test_a_thousand_requests() -> None:
    """The same policy changes nothing of 1,000; another its 20, which are listed."""
    rng = random.Random(6)
    busy = (
        DEFAULT.replace("default", PolicyProfile.STRICT.value)
        + "rules:\n"
        + "  - {name: office, effect: deny, match: {operations: [RotateKey]}, except: "
        "{time: {from: 08:00, to: 18:00, zone: Europe/Berlin}}}\n"
        "  - {name: inside, effect: require-approval, match: {tags: [prod]}, except: "
        "{networks: [10.0.0.0/8]}}\n"
        "  - {name: own, effect: deny, match: {roles: [Service]}, except: "
        "{owners: [self]}}\n"
    )
    engine = RuleEngine(parse_policy(busy))
    events = [_record(seq, engine, rng) for seq in range(1000)]
    outcomes = {e.rule.partition(":")[0] for e in events}
    assert {"approval", "default-deny", "office", "own", "role"} <= outcomes
    allowed = [e for e in events if e.rule.startswith("role:")]
    planted = sorted(e.seq for e in rng.sample(allowed, 20))
    names = ", ".join(f"key-{seq}" for seq in planted)
    other = (
        busy + f"  - {{name: planted, effect: deny, match: {{key_names: [{names}]}}}}\n"
    )
    changed = RuleEngine(parse_policy(other))

    same = changes_of(events, engine)
    found = changes_of(events, changed)

    assert [] == same
    assert planted == [change.seq for change in found]
    assert {("allow", "deny", "planted")} == {
        (c.before, c.after, c.after_rule) for c in found
    }


ASKING = (
    DEFAULT + "rules:\n  - {name: asking, effect: require-approval, "
    "match: {operations: [Sign]}, approval: {@}}\n"
)


@pytest.mark.parametrize(
    "approval",
    [
        "quorum: 2",
        "roles: [Auditor]",
        "distinct_roles: [Operator, Auditor]",
        "ttl_seconds: 60",
        "uses: 5",
        "signed: true",
    ],
    ids=lambda text: text.partition(":")[0],
)
def test_another_demand_is_another_outcome(approval: str) -> None:
    """Who asks other people, or more of them, changes all that was asked for before."""
    rng = random.Random(7)
    engine = RuleEngine(parse_policy(ASKING.replace("@", "quorum: 1")))
    events = [_record(seq, engine, rng) for seq in range(200)]
    asked = [e.seq for e in events if e.rule.startswith("approval:asking")]
    other = RuleEngine(parse_policy(ASKING.replace("@", approval)))
    renamed = ASKING.replace("@", "quorum: 1").replace("asking", "as-before")

    found = changes_of(events, other)
    same = RuleEngine(parse_policy(renamed))

    assert 0 < len(asked)
    assert asked == [change.seq for change in found]
    assert {("approval", "approval")} == {(c.before, c.after) for c in found}
    assert all(c.before_demands != c.after_demands for c in found)
    assert [] == changes_of(events, same)


def test_the_trail_says_what_was_asked_for() -> None:
    """The demands stand in the record of the request, so that they can be compared."""
    with memory_hsm() as gateway:
        session = Session(gateway.act_as(caller()))
        key = session.create_key("ed25519", tags=("dual",)).key_id
        with pytest.raises(errors.ApprovalRequiredError):
            session.destroy(key)
        same = session.test_policy(DEFAULT)
        two = DEFAULT + (
            "rules:\n  - {name: two, effect: require-approval, match: {operations: "
            "[DestroyKey]}, approval: {quorum: 2}}\n"
        )
        changed = session.test_policy(two)

    assert () == same.changes
    (change,) = changed.changes
    assert [1] == [demand.quorum for demand in change.before_demands]
    assert [1, 2] == [demand.quorum for demand in change.after_demands]


def test_a_bad_policy_is_refused() -> None:
    """What is no policy can't be tried, and the place is named."""
    with memory_hsm() as gateway:
        session = Session(gateway.act_as(caller()))
        with pytest.raises(errors.InvalidInputError, match="line 1: version"):
            session.test_policy("version: 7")


def test_page_by_page() -> None:
    """A trail that is longer than one answer is tried to its end."""
    text = (
        DEFAULT + "rules:\n  - {name: n, effect: deny, match: {operations: [Sign]}}\n"
    )
    with memory_hsm() as gateway:
        hsm = gateway.act_as(caller())
        key = hsm.execute(ops.CreateKey(algorithm="ed25519"))
        for _ in range(30):
            hsm.execute(ops.Sign(key_id=key.key_id, message=b""))
        start, found = 0, list[int]()
        while True:
            page = hsm.execute(ops.TestPolicy(policy=text, start_seq=start, limit=7))
            found += [change.seq for change in page.changes]
            if page.next_seq is None or len(found) == 30:
                break
            start = page.next_seq

    assert 30 == len(found) == len(set(found))
