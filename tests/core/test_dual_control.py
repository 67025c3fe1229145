# SPDX-License-Identifier: MIT
"""Dual control through the pipeline: who may consent to what, and what is bound."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from hsm_core import consent, errors
from hsm_core import operations as ops
from hsm_core._internal.approvals.presentation import context_of
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.policy.engine import RuleEngine
from hsm_core.factory import OpenHSM, open_async
from hsm_core.model import (
    ApprovalDemand,
    ApprovalState,
    AuditEvent,
    Caller,
    Phase,
    Role,
)
from hsm_core.policies import parse_policy
from hsm_core.protocols import Request
from hsm_core.settings import PolicyProfile, Settings
from hsm_core.testing import FakeClock, caller, memory_hsm
from tests.core.dual_support import (
    TWO_PEOPLE,
    DemandingPolicy,
    agreed,
    approve,
    ask,
    dual_hsm,
    ed25519,
    events_of,
    person,
    replace_certificate,
    sign,
)

S = ApprovalState

SIGNING = """
version: 1
extends: default
rules:
  - name: signing
    effect: require-approval
    match: {operations: [Sign]}
    approval: {ttl_seconds: 86400}
"""
TEAM = """
  - name: team
    effect: deny
    match: {key_names: ["pay-*"]}
    except: {principals: ["pay-*", maker, root]}
"""
OFFICE = """
  - name: office
    effect: deny
    match: {operations: [consent]}
    except: {%s}
"""


@pytest.fixture
def policy() -> DemandingPolicy:
    """Give a policy under which another person must agree to signing and more."""
    return DemandingPolicy(
        Sign=TWO_PEOPLE,
        SignBatch=TWO_PEOPLE,
        DestroyKey=TWO_PEOPLE,
        RotateKey=TWO_PEOPLE,
        ImportKey=TWO_PEOPLE,
        ListVersions=TWO_PEOPLE,
    )


@pytest.fixture
def gateway(policy: DemandingPolicy, clock: FakeClock) -> Iterator[OpenHSM]:
    """Give an HSM in memory."""
    with dual_hsm(policy, clock=clock) as opened:
        yield opened


def state(gateway: OpenHSM, asked: ops.ApprovalInfo) -> ApprovalState:
    """Return where an approval stands."""
    found = person(gateway, "onlooker").execute(
        ops.GetApproval(approval_id=asked.approval_id)
    )
    return found.state


class TestBinding:
    def test_repeating_the_request_approves_nothing(self, gateway: OpenHSM) -> None:
        """O-01: whoever asks again hears the same approval, and it stays pending."""
        ann, key = person(gateway, "ann"), ed25519(gateway)

        asked = [ask(ann, sign(key)) for _ in range(3)]

        assert 1 == len({one.approval_id for one in asked})
        assert {S.PENDING} == {one.state for one in asked}
        assert () == asked[-1].decisions

    def test_granted_and_done_once(self, gateway: OpenHSM) -> None:
        """A grant lets the requester do it, once; after that it needs another."""
        ann, bob, key = person(gateway, "ann"), person(gateway, "bob"), ed25519(gateway)
        asked = ask(ann, sign(key))
        assert S.GRANTED is approve(bob, asked).state

        assert ann.execute(sign(key)).signature
        assert S.CONSUMED is state(gateway, asked)
        assert asked.approval_id != ask(ann, sign(key)).approval_id

    def test_what_has_changed_is_looked_at_again(self, gateway: OpenHSM) -> None:
        """AP-12: whoever saw an older generation decides nothing by it."""
        ann, bob, key = person(gateway, "ann"), person(gateway, "bob"), ed25519(gateway)
        carl = person(gateway, "carl")
        asked = ask(ann, sign(key))
        aid, digest = asked.approval_id, asked.digest
        agreed = ops.Approve(approval_id=aid, digest=digest, generation=1)
        refused = ops.Deny(approval_id=aid, digest=digest, generation=1, reason="no")
        assert S.GRANTED is bob.execute(agreed).state

        for decision in (agreed, refused):
            with pytest.raises(errors.GenerationConflictError, match="Review it"):
                carl.execute(decision)
        again = bob.execute(agreed)
        looked = msgspec.structs.replace(refused, generation=again.generation)

        assert ["bob"] == [decision.principal for decision in again.decisions]
        assert S.DENIED is carl.execute(looked).state

    def test_another_person_consumes_nothing(self, gateway: OpenHSM) -> None:
        """O-02: what ann asked for and bob granted serves neither bob nor carl."""
        _, key, asked = agreed(gateway)

        for name in ("bob", "carl", "Ann"):
            assert (
                asked.approval_id != ask(person(gateway, name), sign(key)).approval_id
            )
        named = gateway.act_as(caller(principal="carl"))
        with pytest.raises(errors.ApprovalNotFoundError):
            named.execute(sign(key), approval_id=asked.approval_id)
        assert S.GRANTED is state(gateway, asked)

    def test_another_operation_is_not_approved(self, gateway: OpenHSM) -> None:
        """O-03, AP-04: message, key, version and kind are bound, each by itself."""
        ann, bob, key = person(gateway, "ann"), person(gateway, "bob"), ed25519(gateway)
        other = ed25519(gateway, "other")
        asked = ask(ann, sign(key))
        approve(bob, asked)

        others: list[ops.Operation[Any]] = [
            sign(key, b"m2"),
            sign(other),
            ops.SignBatch(key_id=key, items=(ops.SignItem(message=b"m1"),)),
            ops.DestroyKey(key_id=key),
        ]
        for operation in others:
            assert asked.approval_id != ask(ann, operation).approval_id
        with pytest.raises(errors.AccessDeniedError):
            ann.execute(sign(key, b"m2"), approval_id=asked.approval_id)
        done = ann.execute(sign("signer"), approval_id=asked.approval_id)
        assert key == done.key_id

    def test_a_rotation_takes_the_version_away(
        self, gateway: OpenHSM, policy: DemandingPolicy
    ) -> None:
        """O-03: what was approved for version 1 is not done with version 2."""
        ann, key, asked = agreed(gateway)
        policy.demands["RotateKey"] = ()
        ann.execute(ops.RotateKey(key_id=key))

        assert asked.approval_id != ask(ann, sign(key)).approval_id

    def test_what_is_about_an_old_version_outlives_a_rotation(
        self, gateway: OpenHSM, policy: DemandingPolicy
    ) -> None:
        """The version that the operation names is bound, not the current one."""
        ann, key = person(gateway, "ann"), ed25519(gateway)
        policy.demands["RevokeKey"], policy.demands["RotateKey"] = (TWO_PEOPLE,), ()
        revoking = ops.RevokeKey(key_id=key, version=1)
        approve(person(gateway, "bob"), ask(ann, revoking))
        ann.execute(ops.RotateKey(key_id=key))

        assert key == ann.execute(revoking).key_id

    def test_no_role_is_exempt(self, gateway: OpenHSM) -> None:
        """O-04: an administrator alone destroys nothing."""
        admin = person(gateway, "root", *Role)
        key = ed25519(gateway)

        asked = ask(admin, ops.DestroyKey(key_id=key))

        with pytest.raises(errors.AccessDeniedError):
            approve(admin, asked)
        with pytest.raises(errors.AccessDeniedError):
            admin.execute(ops.Deny(approval_id=asked.approval_id, reason="no"))

    def test_the_strict_profile_is_usable(self) -> None:
        """A built-in policy that demands consent lets it be given."""
        settings = Settings(policy_profile=PolicyProfile.STRICT)
        create = ops.CreateKey(algorithm="ML-KEM-768")
        with memory_hsm(settings=settings) as gateway:
            ann = person(gateway, "ann")
            asked = ask(ann, create)
            approve(person(gateway, "bob", Role.AUDITOR), asked)

            assert 1 == ann.execute(create).version

    def test_named_where_none_is_needed(self, gateway: OpenHSM) -> None:
        """Nobody puts the approval of somebody else on record for what needs none."""
        ann, bob = gateway.act_as(caller(principal="ann")), person(gateway, "bob")
        key = ed25519(gateway)
        theirs = ask(bob, sign(key)).approval_id
        for operation in (
            ops.GenerateRandom(length=8),
            ops.UpdateKey(key_id=key, description="d"),
        ):
            ann.execute(operation, approval_id=theirs)
        update = ops.UpdateKey(key_id=key, description="e")
        for named in ("", theirs):
            ann.execute(update, idempotency_key="i", approval_id=named)
        with pytest.raises(errors.ApprovalNotFoundError):
            ann.execute(sign(key), approval_id=theirs)

        found = events_of(gateway, lambda e: e.approval_id == theirs)
        mine = [e for e in found if e.caller and e.caller.principal == "ann"]

        assert ["approval_not_found"] == [event.code for event in mine]

    def test_named_besides_the_one_it_is_about(self, gateway: OpenHSM) -> None:
        """What is refused of an approval is on record for that one."""
        ann, bob, key = person(gateway, "ann"), person(gateway, "bob"), ed25519(gateway)
        asked, other = ask(ann, sign(key)), ask(bob, sign(key))
        own = ops.Approve(approval_id=asked.approval_id, digest=asked.digest)
        with pytest.raises(errors.AccessDeniedError):
            ann.execute(own, approval_id=other.approval_id)

        (refused,) = events_of(gateway, lambda e: e.kind == "Approve")

        assert asked.approval_id == refused.approval_id


class TestPeople:
    @pytest.mark.parametrize(
        "name", ["ann", "ANN", " ann", "a\u200bnn", "\uff41nn"], ids=ascii
    )
    def test_nobody_approves_their_own(self, gateway: OpenHSM, name: str) -> None:
        """AP-01: case, width and what shows nothing make no other person."""
        asked = ask(person(gateway, "ann"), sign(ed25519(gateway)))

        with pytest.raises(errors.AccessDeniedError):
            approve(person(gateway, name, Role.AUDITOR), asked)
        assert S.PENDING is state(gateway, asked)

    def test_one_certificate_is_one_person(self, gateway: OpenHSM) -> None:
        """AP-01: neither the requester's nor an approver's certificate counts again."""
        ann = person(gateway, "ann", certificate="aa" * 32)
        key = ed25519(gateway)
        asked = ask(ann, sign(key))

        with pytest.raises(errors.AccessDeniedError):
            approve(person(gateway, "bob", certificate="aa" * 32), asked)
        approve(person(gateway, "bob", certificate="bb" * 32), asked)
        with pytest.raises(errors.AccessDeniedError):
            approve(person(gateway, "carl", certificate="bb" * 32), asked)

    def test_a_certificate_that_all_share(self, policy: DemandingPolicy) -> None:
        """Behind a proxy it tells nobody apart, where the policy says so."""
        policy.policy = replace(policy.policy, distinct_certificates=False)
        with dual_hsm(policy) as gateway:
            ann = person(gateway, "ann", certificate="aa" * 32)
            asked = ask(ann, sign(ed25519(gateway)))

            approve(person(gateway, "bob", certificate="aa" * 32), asked)
            assert S.GRANTED is state(gateway, asked)

    def test_certificates_are_told_apart_again(self, policy: DemandingPolicy) -> None:
        """What two names behind one certificate agreed to counts once, from then on."""
        usual = policy.policy
        policy.policy = replace(usual, distinct_certificates=False)
        policy.demands["Sign"] = (ApprovalDemand(rule="r", quorum=2),)
        with dual_hsm(policy) as gateway:
            ann, key = person(gateway, "ann"), ed25519(gateway)
            asked = ask(ann, sign(key))
            for name in ("bob", "carl"):
                approve(person(gateway, name, certificate="bb" * 32), asked)
            policy.policy = usual

            again = ask(ann, sign(key))

        assert (asked.approval_id, ("1 more person",)) == (
            again.approval_id,
            again.missing,
        )

    def test_the_same_person_twice(
        self, gateway: OpenHSM, policy: DemandingPolicy
    ) -> None:
        """AP-12: who says it twice has said it once; the opposite is refused."""
        policy.demands["Sign"] = (ApprovalDemand(rule="r", quorum=2),)
        ann, bob, key = person(gateway, "ann"), person(gateway, "bob"), ed25519(gateway)
        asked = ask(ann, sign(key))

        once, twice = approve(bob, asked), approve(person(gateway, "BOB"), asked)

        assert (S.PENDING, 1) == (twice.state, len(twice.decisions))
        assert once.generation == twice.generation
        assert ("1 more person",) == twice.missing
        with pytest.raises(errors.ConflictError):
            bob.execute(ops.Deny(approval_id=asked.approval_id, reason="changed"))

    def test_distinct_roles(self, gateway: OpenHSM, policy: DemandingPolicy) -> None:
        """Two roles need two persons, though one has both; order does not matter."""
        policy.demands["Sign"] = (
            ApprovalDemand(
                rule="r", distinct_roles=(Role.OPERATOR, Role.AUDITOR), quorum=2
            ),
        )
        asked = ask(person(gateway, "ann"), sign(ed25519(gateway)))
        both = person(gateway, "both", Role.OPERATOR, Role.AUDITOR)

        assert S.PENDING is approve(both, asked).state
        missing = approve(person(gateway, "op", Role.OPERATOR), asked).missing

        assert () == missing
        assert S.GRANTED is state(gateway, asked)

    def test_roles_of_a_demand(self, gateway: OpenHSM, policy: DemandingPolicy) -> None:
        """Who has none of the roles that are asked for neither grants nor denies."""
        policy.demands["Sign"] = (ApprovalDemand(rule="r", roles=(Role.AUDITOR,)),)
        asked = ask(person(gateway, "ann"), sign(ed25519(gateway)))
        bob = person(gateway, "bob", Role.OPERATOR)

        assert ("1 more of Auditor",) == asked.missing
        with pytest.raises(errors.AccessDeniedError):
            approve(bob, asked)
        with pytest.raises(errors.AccessDeniedError):
            bob.execute(ops.Deny(approval_id=asked.approval_id, reason="no"))
        with pytest.raises(errors.AccessDeniedError):
            approve(person(gateway, "svc", Role.SERVICE), asked)

    def test_all_demands_must_be_met(
        self, gateway: OpenHSM, policy: DemandingPolicy
    ) -> None:
        """Each rule's demand is met by itself; one person may serve two."""
        policy.demands["Sign"] = (
            ApprovalDemand(rule="a", roles=(Role.AUDITOR,)),
            ApprovalDemand(rule="b", quorum=2),
        )
        asked = ask(person(gateway, "ann"), sign(ed25519(gateway)))

        assert S.PENDING is approve(person(gateway, "o", Role.OPERATOR), asked).state
        assert S.GRANTED is approve(person(gateway, "u", Role.AUDITOR), asked).state

    def test_signed_demands_need_signatures(
        self, gateway: OpenHSM, policy: DemandingPolicy
    ) -> None:
        """Where a signature is asked for, a click is refused and not half counted."""
        policy.demands["Sign"] = (ApprovalDemand(rule="r", signed=True),)
        asked = ask(person(gateway, "ann"), sign(ed25519(gateway)))

        with pytest.raises(errors.InvalidInputError, match="signature"):
            approve(person(gateway, "bob"), asked)


class TestEnds:
    def test_denied(self, gateway: OpenHSM) -> None:
        """A denial ends it, also after it was granted; the next request is new."""
        ann, key, asked = agreed(gateway)
        deny = ops.Deny(approval_id=asked.approval_id, reason="not today")

        assert S.DENIED is person(gateway, "carl").execute(deny).state
        with pytest.raises(errors.ConflictError, match="denied"):
            ann.execute(sign(key), approval_id=asked.approval_id)
        assert asked.approval_id != ask(ann, sign(key)).approval_id

    def test_cancelled(self, gateway: OpenHSM) -> None:
        """AP-12: the requester gives it up, twice the same; nobody else does."""
        ann, bob = person(gateway, "ann"), person(gateway, "bob")
        asked = ask(ann, sign(ed25519(gateway)))
        cancel = ops.CancelApproval(approval_id=asked.approval_id)

        with pytest.raises(errors.AccessDeniedError):
            bob.execute(cancel)
        assert S.CANCELLED is person(gateway, "ANN").execute(cancel).state
        assert S.CANCELLED is ann.execute(cancel).state
        with pytest.raises(errors.ConflictError):
            approve(bob, asked)

    def test_expired_stays_expired(self, gateway: OpenHSM, clock: FakeClock) -> None:
        """AP-07: at its end it serves nothing, and no clock that goes back helps."""
        ann, key, asked = agreed(gateway)
        clock.advance(3600)

        assert asked.approval_id != ask(ann, sign(key)).approval_id
        clock.step(-3600 * 24)
        assert S.EXPIRED is state(gateway, asked)
        with pytest.raises(errors.ConflictError, match="expired"):
            ann.execute(sign(key), approval_id=asked.approval_id)

    def test_a_moment_before_the_end(self, gateway: OpenHSM, clock: FakeClock) -> None:
        """AP-07: until the last microsecond it serves."""
        ann, bob, key = person(gateway, "ann"), person(gateway, "bob"), ed25519(gateway)
        approve(bob, ask(ann, sign(key)))
        clock.advance(3599.999)

        assert ann.execute(sign(key)).signature

    def test_a_clock_that_went_back_first(
        self, gateway: OpenHSM, clock: FakeClock
    ) -> None:
        """AP-07: an hour that passed has passed, whatever the wall clock says."""
        ann, key, asked = agreed(gateway)
        clock.step(-3600 * 24 * 365)
        clock.advance(3600)

        assert asked.approval_id != ask(ann, sign(key)).approval_id

    def test_a_ticket(self, gateway: OpenHSM, policy: DemandingPolicy) -> None:
        """A ticket serves as often as it says, and is counted down."""
        policy.demands["Sign"] = (ApprovalDemand(rule="r", uses=3),)
        ann, key, asked = agreed(gateway)

        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(ann.execute, sign(key)) for _ in range(12)]
        done = [job for job in jobs if job.exception() is None]

        assert 3 == len(done)
        assert S.CONSUMED is state(gateway, asked)

    def test_a_ticket_in_a_batch(
        self, gateway: OpenHSM, policy: DemandingPolicy
    ) -> None:
        """Requests that are executed together wait for each other, and not for ever."""
        policy.demands["Sign"] = (ApprovalDemand(rule="r", uses=3),)
        ann, bob, key = person(gateway, "ann"), person(gateway, "bob"), ed25519(gateway)
        approve(bob, ask(ann, sign(key)))
        who = replace_certificate(caller(principal="ann"), "")
        batch = [Request(who, sign(key))] * 5

        async def work() -> list[object]:
            answers = open_async(gateway).execute_many(batch)
            return list(await asyncio.gather(*answers, return_exceptions=True))

        answers = asyncio.run(asyncio.wait_for(work(), 30))

        assert 3 == sum(not isinstance(answer, Exception) for answer in answers)


class TestReview:
    def test_an_approver_who_was_blocked(
        self, gateway: OpenHSM, policy: DemandingPolicy
    ) -> None:
        """AP-06: a grant counts only while its giver might give it still."""
        ann, key, asked = agreed(gateway)
        bob = person(gateway, "bob")
        policy.blocked.add("bob")

        again = ask(ann, sign(key))

        assert (asked.approval_id, S.PENDING) == (again.approval_id, again.state)
        assert again.decisions[0].withdrawn
        policy.blocked.clear()
        assert S.PENDING is ask(ann, sign(key)).state
        approve(bob, asked)
        assert ann.execute(sign(key)).signature

    @pytest.mark.parametrize(
        ("where", "counts"),
        [
            ("networks: [10.20.0.0/16]", True),
            ("networks: [10.30.0.0/16]", False),
            ("time: {to: '12:00'}", False),
            ("time: {from: '12:00'}", True),
        ],
    )
    def test_where_it_was_given(self, where: str, *, counts: bool) -> None:
        """A grant from the office counts elsewhere, and in the office's hours."""
        clock = FakeClock(1_767_254_400_000_000)  # 2026-01-01T08:00Z
        with memory_hsm(clock=clock, policy=parse_policy(SIGNING)) as gateway:
            ann, key = person(gateway, "ann"), ed25519(gateway)
            asked = ask(ann, sign(key))
            bob = caller(Role.ADMINISTRATOR, principal="bob")
            bob = msgspec.structs.replace(bob, source_address="10.20.1.1")
            approve(gateway.act_as(bob), asked)
            clock.advance(8 * 3600)
            office = RuleEngine(parse_policy(SIGNING + OFFICE % where))
            gateway._services.policy.replace(office, clock.now())  # noqa: SLF001

            if counts:
                assert ann.execute(sign(key)).signature
            else:
                assert ask(ann, sign(key)).decisions[0].withdrawn

    def test_stricter_of_old_and_new(
        self, gateway: OpenHSM, policy: DemandingPolicy
    ) -> None:
        """AP-11: more people are asked if the policy asks them; never fewer."""
        ann, key, asked = agreed(gateway)
        policy.demands["Sign"] = (ApprovalDemand(rule="two-people", quorum=2),)

        assert ("1 more person",) == ask(ann, sign(key)).missing
        policy.demands["Sign"] = (TWO_PEOPLE,)
        assert S.PENDING is ask(ann, sign(key)).state
        approve(person(gateway, "carl"), asked)
        assert ann.execute(sign(key)).signature

    def test_a_shorter_time(
        self, gateway: OpenHSM, policy: DemandingPolicy, clock: FakeClock
    ) -> None:
        """AP-11: of two times the shorter one holds."""
        ann, key, asked = agreed(gateway)
        clock.advance(600)
        policy.demands["Sign"] = (ApprovalDemand(rule="two-people", seconds=300),)

        ann_again = ask(ann, sign(key))

        assert asked.approval_id != ann_again.approval_id


class TestWhatIsShown:
    def test_the_digest_is_of_what_is_shown(self, gateway: OpenHSM) -> None:
        """Everybody can recompute it, and no two requests share it."""
        ann, key = person(gateway, "ann"), ed25519(gateway)
        asked, other = ask(ann, sign(key)), ask(ann, sign(key, b"m2"))

        assert asked.digest == consent.shown_sha256(asked.salt, asked.operation)
        assert asked.digest != other.digest
        shown = asked.operation
        assert ("Sign", "ann", key, "signer", 1) == (
            shown.kind,
            shown.requester,
            shown.key_id,
            shown.key_name,
            shown.version,
        )
        assert b"m1" in [field.data for field in shown.fields]

    def test_another_digest_is_refused(self, gateway: OpenHSM) -> None:
        """A page that shows something else grants and denies nothing."""
        asked = ask(person(gateway, "ann"), sign(ed25519(gateway)))
        bob = person(gateway, "bob")

        for operation in (
            ops.Approve(approval_id=asked.approval_id, digest="00" * 32),
            ops.Deny(approval_id=asked.approval_id, digest="00" * 32, reason="x"),
        ):
            with pytest.raises(errors.ConflictError, match="digest"):
                bob.execute(operation)
        assert S.PENDING is state(gateway, asked)

    def test_secrets_are_never_stored(self, policy: DemandingPolicy) -> None:
        """Of a secret there is a length and a salted hash, and no byte at rest."""
        secret = b"a plaintext that nobody else may see"
        policy.demands["Encrypt"] = (TWO_PEOPLE,)
        with dual_hsm(policy) as gateway:
            ann = person(gateway, "ann")
            key = person(gateway, "maker").execute(
                ops.CreateKey(algorithm="AES-256-GCM")
            )
            operation = ops.Encrypt(key_id=key.key_id, plaintext=secret)
            asked = ask(ann, operation)
            approve(person(gateway, "bob"), asked)
            consents: Any = gateway._services.consents  # noqa: SLF001 (what lies there)
            packed = gateway._services.inventory.ring.open_approval(  # noqa: SLF001
                consents.state_of(asked.approval_id).sealed,
                approval_id=asked.approval_id,
            )
            field = next(f for f in asked.operation.fields if f.name == "plaintext")

            assert secret not in packed
            assert (len(secret), None) == (field.length, field.data)
            assert (
                consent.hidden_sha256(asked.salt, "plaintext", secret) == field.sha256
            )
            assert ann.execute(operation).ciphertext

    def test_the_largest_requests_have_room(self, policy: DemandingPolicy) -> None:
        """What is asked for may be long: what is shown of it has a bound."""
        items = tuple(
            ops.SignItem(message=bytes(1024), reference="\u20ac" * 128)
            for _ in range(1000)
        )
        demands = [
            ApprovalDemand(
                rule=f"{number:02}" + "\u20ac" * 126,
                roles=tuple(Role),
                distinct_roles=(Role.OPERATOR, Role.AUDITOR),
                quorum=100,
            )
            for number in range(16)
        ]
        policy.demands["SignBatch"] = demands
        with dual_hsm(policy) as gateway:
            key = ed25519(gateway)
            ann = gateway.act_as(caller(principal="\u20ac" * 128))

            asked = ask(ann, ops.SignBatch(key_id=key, items=items))

            assert 16 == len(asked.demands)
            assert asked.digest == consent.shown_sha256(asked.salt, asked.operation)


class TestVisibility:
    def test_who_may_not_approve_sees_their_own(self, gateway: OpenHSM) -> None:
        """A service sees and cancels what it asked for, and nothing of others."""
        key = ed25519(gateway)
        mine = ask(person(gateway, "svc", Role.SERVICE), sign(key))
        theirs = ask(person(gateway, "ann"), sign(key))
        service = person(gateway, "svc", Role.SERVICE)

        listed = service.execute(ops.ListApprovals())

        assert [mine.approval_id] == [item.approval_id for item in listed.items]
        assert () == service.execute(ops.ListApprovals(requester="ann")).items
        for operation in (
            ops.GetApproval(approval_id=theirs.approval_id),
            ops.CancelApproval(approval_id=theirs.approval_id),
        ):
            with pytest.raises(errors.ApprovalNotFoundError):
                service.execute(operation)
        cancel = ops.CancelApproval(approval_id=mine.approval_id)
        assert S.CANCELLED is service.execute(cancel).state

    def test_keys_that_are_kept_from_an_approver(self) -> None:
        """Who must not know of a key hears of no request about it, and grants none."""
        with memory_hsm(policy=parse_policy(SIGNING + TEAM)) as gateway:
            ann, eve = person(gateway, "pay-ann"), person(gateway, "eve")
            key, other = ed25519(gateway, "pay-key"), ed25519(gateway, "key")
            secret, open_ = ask(ann, sign(key)), ask(ann, sign(other))
            for operation in (
                ops.GetApproval(approval_id=secret.approval_id),
                ops.Approve(approval_id=secret.approval_id, digest=secret.digest),
                ops.Deny(approval_id=secret.approval_id, reason="r"),
            ):
                with pytest.raises(errors.ApprovalNotFoundError):
                    eve.execute(operation)
            listed = eve.execute(ops.ListApprovals()).items
            assert [open_.approval_id] == [item.approval_id for item in listed]
            approve(eve, open_)
            approve(person(gateway, "pay-bob", Role.AUDITOR), secret)
            assert ann.execute(sign(key)).signature

            mover = person(gateway, "root")
            mover.execute(ops.UpdateKey(key_id=other, name="pay-other"))

            assert ask(ann, sign(other)).decisions[0].withdrawn

    def test_filters_and_pages(self, gateway: OpenHSM) -> None:
        """A listing is narrowed by state, kind, key and requester, and has pages."""
        ann, bob, key = person(gateway, "ann"), person(gateway, "bob"), ed25519(gateway)
        signs = [ask(ann, sign(key, bytes([n]))).approval_id for n in range(5)]
        other = ask(bob, ops.DestroyKey(key_id=key)).approval_id
        approve(bob, ask(ann, sign(key, b"\0")))

        def ids(**facts: Any) -> list[str]:
            found = bob.execute(ops.ListApprovals(**facts)).items
            return [item.approval_id for item in found]

        assert {*signs, other} == set(ids())
        assert [other] == ids(kind="DestroyKey")
        assert [other] == ids(requester="bob")
        assert [signs[0]] == ids(states=(S.GRANTED,))
        assert [] == ids(key_id="nothing")
        walked, cursor = list[str](), ""
        while True:
            page = bob.execute(ops.ListApprovals(per_page=2, cursor=cursor))
            walked += [item.approval_id for item in page.items]
            cursor = page.next_cursor
            if not cursor:
                break
        assert sorted([*signs, other]) == sorted(walked)
        for facts, field in (({"cursor": "x"}, "cursor"), ({"per_page": 101}, "per_p")):
            with pytest.raises(errors.InvalidInputError, match=field):
                bob.execute(ops.ListApprovals(**facts))

    def test_a_flood_is_dammed(self, policy: DemandingPolicy) -> None:
        """AP-10: one person has so many open requests, and others are not concerned."""
        settings = Settings(approval_requests=3)
        with dual_hsm(policy, settings=settings) as gateway:
            ann, key = person(gateway, "ann"), ed25519(gateway)
            asked = [ask(ann, sign(key, bytes([n]))) for n in range(3)]

            with pytest.raises(errors.TooManyApprovalsError) as caught:
                ann.execute(sign(key, b"more"))

            assert 3 == caught.value.facts["limit"]
            assert asked[0].approval_id == ask(ann, sign(key, b"\0")).approval_id
            ask(person(gateway, "bob"), sign(key))
            ann.execute(ops.CancelApproval(approval_id=asked[0].approval_id))
            ask(ann, sign(key, b"more"))


class TestEveryKind:
    def test_mutations_with_an_idempotency_key(self, gateway: OpenHSM) -> None:
        """The key is bound when it is done: asked, granted, done, answered again."""
        ann, bob, key = person(gateway, "ann"), person(gateway, "bob"), ed25519(gateway)
        rotate = ops.RotateKey(key_id=key)
        asked = ask(ann, rotate, idempotency_key="k1")
        assert asked.approval_id == ask(ann, rotate, idempotency_key="k1").approval_id
        approve(bob, asked)

        first = ann.execute(rotate, idempotency_key="k1")
        second = ann.execute(rotate, idempotency_key="k1")

        assert (2, 2) == (first.version, second.version)
        assert S.CONSUMED is state(gateway, asked)
        assert asked.approval_id != ask(ann, rotate, idempotency_key="k2").approval_id

    def test_batches(self, gateway: OpenHSM) -> None:
        """A batch is one operation, approved as a whole."""
        ann, bob, key = person(gateway, "ann"), person(gateway, "bob"), ed25519(gateway)
        items = tuple(ops.SignItem(message=bytes([n])) for n in range(3))
        batch = ops.SignBatch(key_id=key, items=items)
        approve(bob, ask(ann, batch))

        assert 3 == len(ann.execute(batch).items)
        ask(ann, ops.SignBatch(key_id=key, items=items[::-1]))

    def test_reads(self, gateway: OpenHSM) -> None:
        """What a read needs consent for is on record when it is done."""
        ann, bob, key = person(gateway, "ann"), person(gateway, "bob"), ed25519(gateway)
        read = ops.ListVersions(key_id=key)
        asked = ask(ann, read)
        approve(bob, asked)

        assert 1 == len(ann.execute(read).items)
        assert ["approval_required", "ok"] == [
            event.code
            for event in events_of(gateway, lambda e: e.kind == "ListVersions")
        ]
        ask(ann, read)

    def test_what_fails_gives_its_approval_back(self, gateway: OpenHSM) -> None:
        """AP-08: an operation that was not done has used nothing up."""
        ann, bob = person(gateway, "ann"), person(gateway, "bob")
        wrong = ops.ImportKey(
            algorithm="ed25519", wrapping_key_id=_wrapping(gateway), wrapped=b"x" * 80
        )
        asked = ask(ann, wrong)
        approve(bob, asked)

        for _ in range(2):
            with pytest.raises(errors.HSMError) as caught:
                ann.execute(wrong)
            assert not isinstance(caught.value, errors.ApprovalRequiredError)
        assert S.GRANTED is state(gateway, asked)


def _wrapping(gateway: OpenHSM) -> str:
    made = person(gateway, "maker").execute(
        ops.CreateKey(algorithm="ML-KEM-1024", usages=("wrap", "unwrap"))  # type: ignore[arg-type]
    )
    return made.key_id


class TestRecords:
    def test_every_step_is_recorded(self, gateway: OpenHSM) -> None:
        """O-05: request, refused grants, grant, denial, use and expiry stand there."""
        ann, bob, key = person(gateway, "ann"), person(gateway, "bob"), ed25519(gateway)
        asked = ask(ann, sign(key))
        with pytest.raises(errors.AccessDeniedError):
            approve(ann, asked)
        approve(bob, asked)
        ann.execute(sign(key))

        told = [
            (event.kind, event.phase, event.code, event.caller.principal)
            for event in events_of(
                gateway, lambda e: e.approval_id == asked.approval_id
            )
            if event.caller is not None
        ]

        both = (Phase.INTENT, Phase.OUTCOME)
        assert [
            *(("system.approval-requested", phase, "ok", "ann") for phase in both),
            ("Sign", Phase.SINGLE, "approval_required", "ann"),
            ("Approve", Phase.SINGLE, "access_denied", "ann"),
            *(("Approve", phase, "ok", "bob") for phase in both),
            *(("system.approval-reserved", phase, "ok", "ann") for phase in both),
            ("Sign", Phase.SINGLE, "ok", "ann"),
            *(("system.approval-used", phase, "ok", "ann") for phase in both),
        ] == told

    def test_ends_of_old_requests(self, policy: DemandingPolicy) -> None:
        """O-05: that nobody asks any more is recorded, however many are open since."""
        clock = FakeClock()
        settings = Settings(approval_requests=300)
        with dual_hsm(policy, clock=clock, settings=settings) as gateway:
            ann, key = person(gateway, "ann"), ed25519(gateway)
            old = ask(ann, sign(key, b"old")).approval_id
            clock.advance(3599)
            for number in range(210):
                ask(ann, sign(key, str(number).encode()))
            clock.advance(1)
            for _ in range(3):
                gateway._maintenance._care.expire()  # noqa: SLF001 (its time)

            found = events_of(gateway, lambda e: e.kind == "system.approval-expired")

            assert {old} == {event.approval_id for event in found}

    def test_ends_are_recorded(self, gateway: OpenHSM, clock: FakeClock) -> None:
        """O-05: a denial with its reason, said twice; a cancellation; an expiry."""
        ann, bob, key = person(gateway, "ann"), person(gateway, "bob"), ed25519(gateway)
        first, second, third = (ask(ann, sign(key, bytes([n]))) for n in range(3))
        deny = ops.Deny(approval_id=first.approval_id, reason="because")
        bob.execute(deny)
        bob.execute(deny)
        ann.execute(ops.CancelApproval(approval_id=second.approval_id))
        clock.advance(3600)
        state(gateway, third)

        def ends(event: AuditEvent) -> bool:
            kinds = {"Deny", "CancelApproval", "system.approval-expired"}
            return event.kind in kinds and event.phase is not Phase.INTENT

        told = [(event.kind, event.approval_id) for event in events_of(gateway, ends)]
        assert [
            ("Deny", first.approval_id),
            ("Deny", first.approval_id),
            ("CancelApproval", second.approval_id),
            ("system.approval-expired", third.approval_id),
        ] == told
        (denial,) = events_of(
            gateway, lambda e: e.kind == "Deny" and e.phase is Phase.OUTCOME
        )
        assert "because" == denial.parameters["reason"]
        assert first.digest == denial.parameters["shown_sha256"]


class TestRaces:
    def test_fifty_at_once(self, gateway: OpenHSM) -> None:
        """AP-05: of fifty that execute one approval, one does."""
        ann, key, asked = agreed(gateway)

        with ThreadPoolExecutor(50) as pool:
            jobs = [pool.submit(ann.execute, sign(key)) for _ in range(50)]
        problems = [job.exception() for job in jobs]

        assert 1 == problems.count(None)
        assert {errors.ApprovalRequiredError} == {type(p) for p in problems if p}
        done = events_of(gateway, lambda e: e.kind == "Sign" and e.code == "ok")
        assert [asked.approval_id] == [event.approval_id for event in done]

    def test_fifty_changes_at_once(self, gateway: OpenHSM) -> None:
        """AP-05: the same of an operation that changes a key."""
        ann, bob, key = person(gateway, "ann"), person(gateway, "bob"), ed25519(gateway)
        approve(bob, ask(ann, ops.RotateKey(key_id=key)))

        with ThreadPoolExecutor(50) as pool:
            jobs = [
                pool.submit(ann.execute, ops.RotateKey(key_id=key)) for _ in range(50)
            ]

        assert 1 == [job.exception() for job in jobs].count(None)
        described = ann.execute(ops.DescribeKey(key_id=key))
        assert 2 == described.version

    def test_requests_at_once(self, gateway: OpenHSM) -> None:
        """AP-02: of many equal requests at one time there is one approval."""
        ann, key = person(gateway, "ann"), ed25519(gateway)
        with ThreadPoolExecutor(16) as pool:
            jobs = [pool.submit(ask, ann, sign(key)) for _ in range(16)]

        assert 1 == len({job.result().approval_id for job in jobs})


class TestDesk:
    def test_schedulers_ask_ahead(
        self, gateway: OpenHSM, policy: DemandingPolicy, clock: FakeClock
    ) -> None:
        """A request made ahead outlives what the policy gives, and is found."""
        policy.demands["DestroyKey"] = (ApprovalDemand(rule="r", seconds=60),)
        key = ed25519(gateway)
        who, operation = caller(principal="ann"), ops.DestroyKey(key_id=key)

        made = gateway.desk.request(who, operation, minimum_seconds=86400)
        again = gateway.desk.request(who, operation)

        assert made is not None
        assert again is not None
        assert made.approval_id == again.approval_id
        clock.advance(3600)
        bob = person(gateway, "bob")
        bob.execute(ops.Approve(approval_id=made.approval_id, digest=made.shown_sha256))
        assert S.GRANTED is gateway.desk.state_of(made.approval_id).state
        found = gateway.desk.find(who, operation)
        assert found is not None
        assert found.approval_id == made.approval_id
        assert gateway.act_as(who).execute(operation).key_id == key
        assert gateway.desk.request(who, ops.DescribeKey(key_id=key)) is None


@pytest.mark.parametrize("point", ["mutation.after_store", "mutation.after_outcome"])
def test_an_interruption_after_the_change_gives_nothing_back(
    gateway: OpenHSM, point: str
) -> None:
    """AP-08: who interrupts a change that was made has used the approval up."""
    ann, key = person(gateway, "ann"), ed25519(gateway)
    asked = ask(ann, ops.RotateKey(key_id=key))
    approve(person(gateway, "bob"), asked)

    def interrupt(name: str) -> None:
        if name == point:
            raise KeyboardInterrupt

    with install(interrupt), pytest.raises(KeyboardInterrupt):
        ann.execute(ops.RotateKey(key_id=key))

    assert S.GRANTED is not state(gateway, asked)
    again = ask(ann, ops.RotateKey(key_id=key))
    assert asked.approval_id != again.approval_id
    assert 2 == person(gateway, "ann").execute(ops.DescribeKey(key_id=key)).version


class TestWithdrawing:
    """Whoever approved may withdraw it until it is consumed."""

    @pytest.fixture
    def asked(self, gateway: OpenHSM) -> ops.ApprovalInfo:
        """Let ann ask for a signature."""
        return ask(person(gateway, "ann"), sign(ed25519(gateway)))

    def test_before_it_is_used(self, gateway: OpenHSM, asked: ops.ApprovalInfo) -> None:
        """The request waits again, nothing is done by it, and they may decide again."""
        bob = person(gateway, "bob")
        key = asked.operation.key_id
        approve(bob, asked)

        withdraw = ops.Withdraw(approval_id=asked.approval_id, reason="too early")
        first, again = bob.execute(withdraw), bob.execute(withdraw)

        assert (S.PENDING, first) == (first.state, again)
        assert [True] == [said.withdrawn for said in first.decisions]
        assert asked.approval_id == ask(person(gateway, "ann"), sign(key)).approval_id
        reasons = {
            e.parameters["reason"]
            for e in events_of(gateway, lambda e: e.kind == "Withdraw")
        }
        assert {"too early"} == reasons
        approve(bob, asked)
        assert person(gateway, "ann").execute(sign(key)).signature
        with pytest.raises(errors.ConflictError):
            bob.execute(withdraw)

    def test_what_others_granted_stays(
        self, gateway: OpenHSM, asked: ops.ApprovalInfo
    ) -> None:
        """It stays granted if the other approvals are enough."""
        bob, carl = person(gateway, "bob"), person(gateway, "carl")
        approve(bob, asked)
        approve(carl, asked)
        withdraw = ops.Withdraw(approval_id=asked.approval_id)

        assert S.GRANTED is bob.execute(withdraw).state
        with pytest.raises(errors.ConflictError):
            carl.execute(ops.Deny(approval_id=asked.approval_id, reason="no"))
        assert S.PENDING is carl.execute(withdraw).state
        denial = ops.Deny(approval_id=asked.approval_id, reason="no")
        assert S.DENIED is carl.execute(denial).state

    def test_again_and_again(self, gateway: OpenHSM, asked: ops.ApprovalInfo) -> None:
        """The record doesn't grow: a decision replaces what was withdrawn before it."""
        bob, carl = person(gateway, "bob"), person(gateway, "carl")
        approve(carl, asked)
        said: tuple[ops.DecisionInfo, ...] = ()
        for _ in range(3):
            said = approve(bob, asked).decisions
            bob.execute(ops.Withdraw(approval_id=asked.approval_id))

        assert ["carl", "bob"] == [decision.principal for decision in said]
        assert [False, False] == [decision.withdrawn for decision in said]

    @pytest.mark.parametrize("who", ["ann", "carl"])
    def test_by_others(
        self, gateway: OpenHSM, asked: ops.ApprovalInfo, who: str
    ) -> None:
        """Nobody withdraws for another person, the requester included."""
        approve(person(gateway, "bob"), asked)
        with pytest.raises(errors.AccessDeniedError):
            person(gateway, who).execute(ops.Withdraw(approval_id=asked.approval_id))

    @pytest.mark.parametrize(
        "granting",
        [
            "grants:\n  Service: [describe, Approve]\n",
            "  - {name: bobs, effect: allow, "
            "match: {operations: [Approve], principals: [bob]}}\n",
        ],
        ids=["role", "rule"],
    )
    def test_who_may_approve_may_withdraw(self, granting: str) -> None:
        """A policy that grants or allows Approve by name grants Withdraw with it."""
        with memory_hsm(policy=parse_policy(SIGNING + granting)) as gateway:
            bob = person(gateway, "bob", Role.SERVICE)
            asked = ask(person(gateway, "ann"), sign(ed25519(gateway)))
            approve(bob, asked)
            withdraw = ops.Withdraw(approval_id=asked.approval_id)

            assert S.PENDING is bob.execute(withdraw).state


def test_open_requests_are_counted_by_person() -> None:
    """Another spelling of one's name gives nobody more open requests."""
    settings = Settings(approval_requests=3)
    with memory_hsm(policy=parse_policy(SIGNING), settings=settings) as gateway:
        key = ed25519(gateway)
        for number, name in enumerate(("ann", "Ann", "ANN")):
            ask(person(gateway, name), sign(key, bytes([number])))
        for name in ("ann", "aNN", "\uff41nn"):
            with pytest.raises(errors.TooManyApprovalsError):
                person(gateway, name).execute(sign(key, b"more"))
        asked = ask(person(gateway, "anna"), sign(key, b"more"))
        assert S.PENDING is asked.state


LABELLED = """
version: 1
extends: default
rules:
  - name: exporting
    effect: require-approval
    match: {operations: [ExportKey, DestroyKey], tags: [dual]}
    approval: {quorum: 1}
  - name: fenced
    effect: deny
    match: {operations: [Sign], tags: [dual], roles: [Service]}
"""


class TestContext:
    """What an approver sees besides the operation; all of it is in the digest."""

    @pytest.fixture
    def labelled(self) -> Iterator[OpenHSM]:
        """Give an HSM where a key with a label is under dual control."""
        with memory_hsm(policy=parse_policy(LABELLED)) as gateway:
            yield gateway

    def test_a_change(self, labelled: OpenHSM) -> None:
        """Before and after, the rules that go, who asks from where, and the key."""
        ann = Caller(
            principal="ann",
            roles=frozenset({Role.ADMINISTRATOR, Role.OPERATOR}),
            source_address="10.1.2.3",
            certificate_subject="CN=ann",
            certificate_sha256="ab" * 32,
        )
        hsm = labelled.act_as(ann)
        create = ops.CreateKey(algorithm="ed25519", name="pay", tags=("prod", "dual"))
        key = hsm.execute(create)
        hsm.execute(sign(key.key_id))
        asked = ask(hsm, ops.UpdateKey(key_id="pay", tags=("prod",)))
        context = asked.operation.context

        assert context is not None
        (change,) = consent.changes(asked.operation)
        assert ("tags", ("dual",), ()) == (change.name, change.removed, change.added)
        assert ("dual-control", "exporting", "fenced") == context.frees_from
        assert (Role.ADMINISTRATOR, Role.OPERATOR) == context.requester_roles
        assert ("10.1.2.3", "CN=ann", "ab" * 32) == (
            context.requester_address,
            context.requester_certificate,
            context.requester_certificate_sha256,
        )
        assert ("ann", key.tags, 1) == (context.owner, context.tags, context.versions)
        assert context.last_used_at
        assert (True, "It can be undone, with UpdateKey.") == (
            context.undoable,
            context.undo,
        )
        told = consent.shown_sha256(asked.salt, asked.operation)
        other = msgspec.structs.replace(context, frees_from=())
        lie = msgspec.structs.replace(asked.operation, context=other)
        assert asked.digest == told != consent.shown_sha256(asked.salt, lie)

    def test_names_beside_ids(self, labelled: OpenHSM) -> None:
        """A key that the operation names besides is told by its name."""
        ann = person(labelled, "ann")
        transport = ann.execute(ops.CreateKey(algorithm="aes-256-kw", name="transport"))
        ann.execute(
            ops.CreateKey(
                algorithm="aes-256-gcm", name="pay", tags=("dual",), exportable=True
            )
        )
        export = ops.ExportKey(key_id="pay", wrapping_key_id="transport")
        context = ask(ann, export).operation.context

        assert context is not None
        (name,) = context.names
        assert ("wrapping_key_id", "transport") == (name.name, name.text)
        assert transport.name == name.text
        assert (
            False,
            "It can't be undone: data that was returned can't be recalled.",
        ) == (
            context.undoable,
            context.undo,
        )

    @pytest.mark.parametrize(
        ("operation", "undoable"),
        [
            (ops.DestroyKey(key_id="k", waiting_days=0), False),
            (ops.DestroyKey(key_id="k", waiting_days=7), True),
            (ops.RevokeKey(key_id="k", reason="r"), False),
            (ops.RotateKey(key_id="k"), True),
            (ops.Sign(key_id="k", message=b"m"), False),
            (ops.RecoverStore(reason="r"), False),
        ],
    )
    def test_undoing(self, operation: ops.Operation[Any], *, undoable: bool) -> None:
        """It is told whether it can be undone."""
        who = caller(principal="ann")
        found = context_of(operation, who, None, {}, salt=bytes(32))

        assert undoable is found.undoable
        assert found.undo.startswith("It can" if undoable else "It can't be undone")
