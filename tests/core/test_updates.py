# SPDX-License-Identifier: MIT
"""What is said of a key can be changed, and no rule is got round that way."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.approvals.presentation import present
from hsm_core.consent import shown_sha256
from hsm_core.factory import OpenHSM
from hsm_core.model import ApprovalState
from hsm_core.policies import parse_policy
from hsm_core.session import Session
from hsm_core.testing import Faults, caller, memory_hsm
from tests.core.hsm_support import memory_session


class TestFacts:
    def test_all(self, session: Session) -> None:
        """
        Each field is changed where it is given, and left where it is not.
        """
        made = session.create_key("aes", name="box", description="d", tags=["a", "b"])

        session.update("box", description="other")
        session.update("box", owner="eve")
        session.update("box", tags=["c", "a", "c"])
        found = session.update("box", name="chest")

        assert ("chest", "other", "eve", ("a", "c")) == (
            found.name,
            found.description,
            found.owner,
            found.tags,
        )
        assert made.generation + 4 == found.generation
        assert found == session.describe("chest").__replace__(use=None)
        session.verify_audit()

    def test_emptied(self, session: Session) -> None:
        """
        Name, description and tags can be taken away, and an owner there always is.
        """
        key = session.create_key("aes", name="box", description="d", tags=["a"]).key_id
        found = session.update(key, name="", description="", tags=[])

        assert ("", "", ()) == (found.name, found.description, found.tags)
        with pytest.raises(errors.InvalidInputError, match="owner"):
            session.update(key, owner="")

    def test_of_nothing(self, session: Session) -> None:
        """
        A change of nothing is a mistake.
        """
        key = session.create_key("aes").key_id

        with pytest.raises(errors.InvalidInputError, match="at least one"):
            session.update(key)

    def test_repeated(self, session: Session) -> None:
        """
        A request that is sent again is answered again, by the old name too.
        """
        session.create_key("aes", name="box")
        first = session.update("box", name="chest", idempotency_key="once")

        assert first == session.update("box", name="chest", idempotency_key="once")
        assert 2 == session.describe("chest").generation


class TestNames:
    def test_freed_and_taken(self, session: Session) -> None:
        """
        The old name is free at once, and the new one is taken.
        """
        first = session.create_key("aes", name="box").key_id
        session.update("box", name="chest")
        second = session.create_key("aes", name="box").key_id

        assert first == session.describe("chest").key_id
        assert second == session.describe("box").key_id
        for key, name in ((second, "chest"), (first, "box")):
            with pytest.raises(errors.NameTakenError):
                session.update(key, name=name)

    def test_its_own(self, session: Session) -> None:
        """
        A key may be given the name that it has.
        """
        session.create_key("aes", name="box")

        assert "box" == session.update("box", name="box").name

    def test_like_an_id(self, session: Session) -> None:
        """
        A name that could be taken for an id is refused.
        """
        key = session.create_key("aes").key_id

        with pytest.raises(errors.InvalidInputError, match="look like a UUID"):
            session.update(key, name=key)

    def test_store_that_refuses(self) -> None:
        """
        Where the store can't commit a rename, the old name stays.
        """
        faults = Faults()
        with memory_session(faults=faults) as session:
            key = session.create_key("aes", name="box").key_id
            faults.plan("store.commit", errors.StorageFullError())
            with pytest.raises(errors.StorageFullError):
                session.update(key, name="chest")

            assert "box" == session.describe("box").name


DUAL = """
version: 1
extends: default
rules:
  - name: two-people-destroy
    effect: require-approval
    match: {operations: [DestroyKey], tags: [dual]}
    approval: {quorum: 1}
"""

ALONE = """
version: 1
extends: default
rules:
  - name: two
    effect: require-approval
    %s
"""
TAGGED = "operations: [DestroyKey], tags: [t]"
PAYING = "operations: [DestroyKey], key_names: ['pay-*']"
OTHERS = "match: {operations: [DestroyKey]}, except: {owners: [self]%s}"


def open_approvals(gateway: OpenHSM) -> tuple[ops.ApprovalInfo, ...]:
    """Return what waits for somebody's consent."""
    hsm = gateway.act_as(caller(principal="carol"))
    pending = (ApprovalState.PENDING,)
    return hsm.execute(ops.ListApprovals(states=pending)).items


TAGS = """
version: 1
extends: default
rules:
  - name: pair
    effect: require-approval
    match: {operations: [DestroyKey], tags: [pair]}
  - name: watched
    effect: require-approval
    match: {operations: [UpdateKey], tags: [watched]}
  - {name: keep, effect: deny, match: {operations: [DestroyKey], tags: [keep]}}
  - {name: frozen, effect: deny, match: {operations: [UpdateKey], tags: [frozen]}}
  - name: own
    effect: deny
    match: {operations: [Sign]}
    except: {owners: [self]}
"""


class TestPolicy:
    @pytest.mark.parametrize(
        ("before", "after", "rules"),
        [
            ("a", "b", ""),
            # What a tag demands of a destruction, it demands of its own removal.
            ("pair", "a", "pair"),
            ("pair", "pair a", ""),
            ("a", "a pair", ""),
            # A rule about updates holds before and after.
            ("watched", "a", "watched"),
            ("a", "watched", "watched"),
            ("pair watched", "", "pair watched"),
        ],
    )
    def test_approvals(self, before: str, after: str, rules: str) -> None:
        """
        What old and new facts ask is asked, and whatever the change would spare.
        """
        with memory_hsm(policy=parse_policy(TAGS)) as gateway:
            session = Session(gateway.act_as(caller(principal="bob")))
            key = session.create_key("ed25519", tags=before.split()).key_id
            asks = pytest.raises(errors.ApprovalRequiredError)
            with asks if rules else nullcontext():
                session.update(key, tags=after.split())

            found = open_approvals(gateway)
            assert set(rules.split()) == {d.rule for i in found for d in i.demands}

    @pytest.mark.parametrize(
        ("before", "change"),
        [
            # To whom something is denied, they can't allow it to themselves.
            ("keep", {"tags": ["a"]}),
            ("a", {"owner": "bob"}),
            # What the old or the new facts deny is denied.
            ("frozen", {"tags": ["a"]}),
            ("a", {"tags": ["frozen"]}),
        ],
    )
    def test_denied(self, before: str, change: dict[str, Any]) -> None:
        """
        Nobody frees a key from what is denied to them, or makes one their own.
        """
        with memory_hsm(policy=parse_policy(TAGS)) as gateway:
            session = Session(gateway.act_as(caller(principal="bob")))
            key = session.create_key("ed25519", owner="alice", tags=[before]).key_id
            with pytest.raises(errors.AccessDeniedError):
                session.update(key, **change)

            if before != "frozen":
                assert "carol" == session.update(key, owner="carol").owner

    def test_in_the_pipeline(self) -> None:
        """
        What two people must agree to for a destruction, they must for taking its tag.
        """
        with memory_hsm(policy=parse_policy(DUAL)) as gateway:
            session = Session(gateway.act_as(caller(principal="bob")))
            key = session.create_key("ed25519", tags=["dual"]).key_id
            with pytest.raises(errors.ApprovalRequiredError):
                session.update(key, tags=[])
            with pytest.raises(errors.ApprovalRequiredError):
                session.destroy(key)
            assert ("dual",) == session.describe(key).tags
            assert "d" == session.update(key, description="d").description

            for info in open_approvals(gateway):
                other = gateway.act_as(caller(principal="carol"))
                other.execute(
                    ops.Approve(approval_id=info.approval_id, digest=info.digest)
                )
            assert () == session.update(key, tags=[]).tags

    @pytest.mark.parametrize(
        ("rule", "change", "asks"),
        [
            (f"match: {{{TAGGED}, time: {{from: '18:00', to: '06:00'}}}}", {}, True),
            (f"match: {{{TAGGED}, time: {{not_before: 2100-01-01T00:00Z}}}}", {}, True),
            (f"match: {{{TAGGED}, networks: [192.0.2.0/24]}}", {}, True),
            (f"match: {{{TAGGED}, certificates: ['{'ab' * 32}']}}", {}, True),
            (f"match: {{{TAGGED}, principals: [eve]}}", {}, True),
            (f"match: {{{TAGGED}, roles: [Operator]}}", {}, True),
            (f"match: {{{TAGGED}}}\n    except: {{principals: [bob]}}", {}, True),
            ("match: {operations: [PurgeVersion], tags: [t]}", {}, True),
            (
                "match: {operations: [UpdateKey], tags: [t], principals: [eve]}",
                {},
                True,
            ),
            (f"match: {{{TAGGED}, principals: [eve]}}", {"tags": ("t", "u")}, False),
            (f"match: {{{PAYING}, principals: [eve]}}", {"name": "box"}, True),
            (f"match: {{{PAYING}, principals: [eve]}}", {"name": "pay-2"}, False),
            (OTHERS % "", {"owner": "eve"}, True),
            (OTHERS % ", roles: [Operator]", {"owner": "eve"}, True),
            (OTHERS % ", tags: [t]", {}, False),
            (
                "match: {operations: [DestroyKey], owners: [self]}",
                {"owner": "eve"},
                True,
            ),
            ("match: {operations: [DestroyKey], principals: [eve]}", {}, False),
        ],
    )
    def test_whoever_and_whenever(
        self, rule: str, change: dict[str, Any], *, asks: bool
    ) -> None:
        """
        What would free a key of somebody else's rule, at another time, is asked for.
        """
        text = ALONE % rule.replace(", except", "\n    except")
        with memory_hsm(policy=parse_policy(text)) as gateway:
            session = Session(gateway.act_as(caller(principal="bob")))
            key = session.create_key("ed25519", name="pay-1", tags=["t"]).key_id
            change = change or {"tags": ()}
            if asks:
                with pytest.raises(errors.ApprovalRequiredError):
                    session.update(key, **change)
            else:
                session.update(key, **change)
            assert bool(open_approvals(gateway)) is asks

    def test_how_it_was_made(self) -> None:
        """
        What is asked of making a key is not asked of one that is there.
        """
        rule = ALONE % "match: {operations: [CreateKey], tags: [t]}"
        with memory_hsm(policy=parse_policy(rule)) as gateway:
            session = Session(gateway.act_as(caller(principal="bob")))
            key = session.create_key("ed25519").key_id
            session.update(key, tags=["t"])

            assert () == session.update(key, tags=[]).tags


def test_shown_to_approvers() -> None:
    """That no tags are to be left is shown, and has another digest than nothing."""
    salt = bytes(32)
    cleared, silent = (
        present(
            ops.UpdateKey(key_id="k", name="n", tags=tags),
            requester="bob",
            document=None,
            salt=salt,
        )
        for tags in ((), None)
    )

    assert {"tags": 0} == {f.name: f.number for f in cleared.fields if f.name == "tags"}
    assert shown_sha256(salt, cleared) != shown_sha256(salt, silent)
