# SPDX-License-Identifier: MIT
"""Approval pages: the digest covers the fields shown, and a decision counts once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from hsm_core import consent
from hsm_core import operations as ops
from hsm_core._internal.approvals.presentation import present as core_present
from hsm_core.algorithms import KeyUsage
from hsm_core.errors import ApprovalRequiredError
from hsm_core.model import ApprovalDemand, ApprovalState, Role
from hsm_core.operations import ApprovalInfo, Operation
from hsm_core.policies import parse_policy
from hsm_core.settings import PolicyProfile, Settings
from hsm_server.ui.approvals import (
    ACTIONS,
    demand_words,
    field_row,
    present,
    rebuild_operation,
)
from hsm_server.vault.access import How, Who
from tests.server.ui_support import Browser, Shown, open_browser

STRICT = Settings(policy_profile=PolicyProfile.STRICT)
CREATE = ops.CreateKey(
    algorithm="ML-KEM-768",
    name="agreed",
    description="<script>alert(1)</script>\u202egnp.exe",
    tags=("team:a", "team:b"),
)
SIGNED = """
version: 1
extends: default
rules:
  - name: signing
    effect: require-approval
    match: {operations: [RotateKey]}
    approval: {signed: true}
approvers:
  bob:
  - "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUrnzSVaaS3Ig8EcTsHY5BPGXv1eFhkFaGRGwH8+"
"""
SALT = bytes(32)


@dataclass
class Console:
    """A console and its HSM."""

    browser: Browser

    async def become(self, who: str, *roles: Role) -> None:
        """Sign in, by default with every role."""
        self.browser.cookies.clear()
        shown = await self.browser.sign_in(roles or tuple(Role), sub=who)
        assert 303 == shown.status, shown.text

    def ask(self, operation: Operation[Any], who: str = "ann") -> str:
        """Request an operation that needs approval; return the request's path."""
        with pytest.raises(ApprovalRequiredError) as caught:
            self.do(operation, who)
        return f"/ui/approvals/{caught.value.facts['approval_id']}"

    def do(self, operation: Operation[Any], who: str = "ann") -> Any:
        """Execute an operation without the console."""
        return self.browser.execute(operation, who)

    def state(self, path: str) -> ApprovalInfo:
        """Return an approval of the core."""
        found = self.do(
            ops.GetApproval(approval_id=path.rpartition("/")[2]), "onlooker"
        )
        assert isinstance(found, ApprovalInfo)
        return found

    async def review(self) -> tuple[str, Shown]:
        """Request a key as ann, and open the request's page as bob."""
        path = self.ask(CREATE)
        await self.become("bob")
        return path, await self.browser.get(path)

    async def say(self, page: Shown, path: str, verb: str, **fields: str) -> Shown:
        """Submit a form of an approval page."""
        return await self.browser.submit(page, f"{path}/{verb}", fields)


@pytest.fixture
async def office() -> AsyncIterator[Console]:
    """Yield a console over an HSM with the strict profile."""
    async with open_browser(core=STRICT) as browser:
        yield Console(browser)


class TestPages:
    async def test_approve_and_execute(self, office: Console) -> None:
        """Bob approves a request, ann executes it, and the history lists it."""
        path = office.ask(CREATE)
        await office.become("bob")
        queue = await office.browser.get("/ui/approvals")
        assert f'href="{path}"' in queue.text
        page = await office.browser.get(path)
        agreed = await office.say(page, path, "approve", comment="as we said")
        shown = await office.browser.follow(agreed)
        assert "Request approved." in shown.words
        assert "as we said" in shown.words

        await office.become("ann")
        own = await office.browser.get(path)
        done = await office.say(own, path, "execute")
        key = office.do(ops.DescribeKey(key_id="agreed"))

        assert f"/ui/keys/{key.key_id}" == done.location
        assert ApprovalState.CONSUMED is office.state(path).state
        history = await office.browser.get("/ui/approvals?tab=history")
        assert f'href="{path}"' in history.text
        assert (
            "No open approval requests."
            in (await office.browser.get("/ui/approvals")).words
        )

    async def test_withdrawing(self, office: Console) -> None:
        """A withdrawn approval makes the request pending again."""
        path = office.ask(CREATE)
        await office.become("bob")
        await office.say(await office.browser.get(path), path, "approve")
        page = await office.browser.get(path)

        done = await office.say(page, path, "withdraw")
        shown = await office.browser.follow(done)

        assert "Approval withdrawn." in shown.words
        assert f'action="{path}/withdraw"' not in shown.text
        assert f'action="{path}/approve"' in shown.text
        assert ApprovalState.PENDING is office.state(path).state

    async def test_changes_are_listed(self, office: Console) -> None:
        """The headline comes first, then changed fields, then the rules."""
        create = ops.CreateKey(algorithm="Ed25519", name="pay", tags=("prod", "dual"))
        office.do(create)
        path = office.ask(ops.UpdateKey(key_id="pay", tags=("prod",)))
        await office.become("bob")

        page = await office.browser.get(path)

        for words in (
            "ann asks to change pay (Ed25519, 1 version, never used). "
            "It can be undone, with UpdateKey.",
            "tags dual, prod prod Removed: dual",
            "these policy rules no longer apply to the key: dual-control",
            "Requester's roles Administrator",
            "Key's tags dual, prod",
            "key pay",
        ):
            assert words in page.words
        assert "<strong>change pay</strong>" in page.text

    async def test_every_field_is_shown(self, office: Console) -> None:
        """The page shows every field and their digest."""
        path, page = await office.review()

        approval = office.state(path)
        for words in ("ML-KEM-768", "agreed", "team:a", "team:b", "tags.1", "ann"):
            assert words in page.words
        digest = consent.shown_sha256(approval.salt, approval.operation)
        assert digest == page.hidden("digest")
        assert digest in page.words
        assert "1" == page.hidden("generation")

    async def test_hostile_text_stays_text(self, office: Console) -> None:
        """Input is neither markup nor able to hide text."""
        _, page = await office.review()

        assert "<script>alert" not in page.text
        assert "<script>alert(1)</script>⟨U+202E⟩gnp.exe" in page.text.replace(
            "&lt;", "<"
        ).replace("&gt;", ">")
        assert "\u202e" not in page.text

    async def test_stale_page(self, office: Console) -> None:
        """A stale page is rejected and shows the current state."""
        path, page = await office.review()
        office.do(ops.Deny(approval_id=path[-36:], reason="not now"), "carl")

        late = await office.say(page, path, "approve")

        assert 409 == late.status
        assert "No change was made" in late.words
        assert "carl denied" in late.words
        assert ["carl"] == [said.principal for said in office.state(path).decisions]

    async def test_a_page_of_an_older_generation(self, office: Console) -> None:
        """A decision on an older generation is rejected."""
        path, page = await office.review()
        digest = office.state(path).digest
        office.do(ops.Approve(approval_id=path[-36:], digest=digest), "carl")

        late = await office.say(page, path, "deny", reason="no")

        assert 409 == late.status
        assert "Review it again" in late.words
        assert ApprovalState.GRANTED is office.state(path).state

    async def test_another_digest_is_refused(self, office: Console) -> None:
        """Another digest is rejected."""
        path, page = await office.review()

        for digest, status in (("00" * 32, 409), ("", 422), ("x", 422)):
            said = await office.say(page, path, "approve", digest=digest)
            assert status == said.status

        assert ApprovalState.PENDING is office.state(path).state

    async def test_a_double_click(self, office: Console) -> None:
        """A form submitted twice is one decision and no error."""
        path, page = await office.review()

        answers = [await office.say(page, path, "approve") for _ in range(2)]

        assert [303, 303] == [answer.status for answer in answers]
        assert 1 == len(office.state(path).decisions)

    async def test_the_back_button(self, office: Console) -> None:
        """AP-12: an old page can't overwrite a decision."""
        path, page = await office.review()
        await office.say(page, path, "approve")

        back = await office.say(page, path, "deny", reason="changed my mind")
        fresh = await office.browser.get(path)

        assert 409 == back.status
        for shown in (back, fresh):
            assert "You approved this request." in shown.words
            assert f'action="{path}/deny"' not in shown.text
        assert "no-store" in fresh.headers["Cache-Control"]
        assert ApprovalState.GRANTED is office.state(path).state

    async def test_cancel_twice(self, office: Console) -> None:
        """AP-12: a cancelled request can't be executed."""
        path = office.ask(CREATE)
        await office.become("ann")
        page = await office.browser.get(path)

        answers = [await office.say(page, path, "cancel") for _ in range(2)]
        execute = await office.say(
            page,
            path,
            "execute",
            digest=office.state(path).digest,
            generation="1",
            key_generation="0",
        )

        assert [303, 303] == [answer.status for answer in answers]
        assert ApprovalState.CANCELLED is office.state(path).state
        assert execute.status in {403, 409}

    async def test_own_request(self, office: Console) -> None:
        """A requester can't approve their own request."""
        path = office.ask(CREATE)
        await office.become("ann")
        page = await office.browser.get(path)
        assert f'action="{path}/approve"' not in page.text

        approval = office.state(path)
        forged = await office.say(
            page, path, "approve", digest=approval.digest, generation="1"
        )

        assert 403 == forged.status
        assert "You can't decide on your own request." in forged.words
        assert ApprovalState.PENDING is office.state(path).state

    async def test_denial_needs_a_reason(self, office: Console) -> None:
        """A denial needs a reason."""
        path, page = await office.review()

        silent = await office.say(page, path, "deny", reason=" ")
        refused = await office.say(page, path, "deny", reason="too early")

        assert (422, 303) == (silent.status, refused.status)
        assert "Required: reason." in silent.words
        assert ApprovalState.DENIED is office.state(path).state
        assert "too early" in (await office.browser.get(path)).words

    async def test_rejected_comment_is_kept(self, office: Console) -> None:
        """A rejected form keeps its input and shows the error at its field."""
        path, page = await office.review()
        words = "a long tale " * 30

        agreed = await office.say(page, path, "approve", comment=words)
        refused = await office.say(page, path, "deny", reason=words)

        assert (422, 422) == (agreed.status, refused.status)
        for answer, name in ((agreed, "comment"), (refused, "reason")):
            assert f'value="{words.strip()}' in answer.text
            assert f'id="error-{name}"' in answer.text
            assert "At most 256 characters." in answer.words
        assert ApprovalState.PENDING is office.state(path).state

    async def test_missing_form_token(self, office: Console) -> None:
        """CSRF: a form without the token is rejected."""
        path = office.ask(CREATE)
        await office.become("bob")
        approval = office.state(path)

        fields = {"digest": approval.digest, "generation": "1", "form_token": "x"}
        shown = await office.browser.post(f"{path}/approve", fields)

        assert 403 == shown.status
        assert ApprovalState.PENDING is office.state(path).state

    async def test_filters(self, office: Console) -> None:
        """The list filters by operation and requester."""
        path = office.ask(CREATE)
        await office.become("bob")
        found = {
            query: f'href="{path}"'
            in (await office.browser.get(f"/ui/approvals?{query}")).text
            for query in ("kind=CreateKey&requester=ann", "kind=Sign", "requester=bob")
        }

        assert [True, False, False] == list(found.values())
        odd = [
            (await office.browser.get(f"/ui/approvals{rest}")).status
            for rest in ("?tab=none", "?cursor=x", "/none", "/" + "0" * 36)
        ]
        assert [422, 422, 404, 404] == odd

    async def test_service_sees_no_requests(self, office: Console) -> None:
        """A service sees no requests of others."""
        path = office.ask(CREATE)
        await office.become("robot", Role.SERVICE)

        assert 404 == (await office.browser.get(path)).status
        assert (
            "No open approval requests."
            in (await office.browser.get("/ui/approvals")).words
        )


async def test_required_signature() -> None:
    """If a signature is required, the page shows the command instead of a form."""
    async with open_browser(policy=parse_policy(SIGNED)) as browser:
        office = Console(browser)
        office.do(ops.CreateKey(algorithm="Ed25519", name="signer"))
        path = office.ask(ops.RotateKey(key_id="signer"))
        await office.become("bob")
        page = await browser.get(path)

    command = f"hsm-cli approvals approve {path[-36:]} --digest "
    assert command in page.words
    assert f'action="{path}/approve"' not in page.text
    assert f'action="{path}/deny"' in page.text


def asked(**changes: Any) -> ApprovalInfo:
    """Return a changed approval of the core."""
    shown = core_present(CREATE, requester="ann", document=None, salt=SALT)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    good = ApprovalInfo(
        approval_id="5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24",
        state=ApprovalState.PENDING,
        generation=1,
        operation=shown,
        salt=SALT,
        digest=consent.shown_sha256(SALT, shown),
        demands=(ApprovalDemand(rule="two"),),
        created_at=at,
        expires_at=at,
    )
    return msgspec.structs.replace(good, **changes)


class TestPresenting:
    def test_different_digest(self) -> None:
        """A request with another digest than its fields can't be approved."""
        good, bad = present(asked()), present(asked(digest="00" * 32))

        assert good["digest"]
        assert not good["problem"]
        assert not bad["digest"]
        assert "digest differs" in bad["problem"]

    def test_incomplete_display(self) -> None:
        """A field in two forms or an unknown format can't be approved."""
        twice = consent.ShownField(name="name", text="x", number=1)
        shown = msgspec.structs.replace(asked().operation, fields=(twice,))

        found = present(
            asked(operation=shown, digest=consent.shown_sha256(SALT, shown))
        )

        assert not found["digest"]
        assert "shown completely" in found["problem"]

    @pytest.mark.parametrize(
        ("field", "form", "value"),
        [
            (consent.ShownField(name="f", text="a\nb"), "text", ("a\nb",)),
            (consent.ShownField(name="f", number=7), "number", ("7",)),
            (
                consent.ShownField(name="f", data=b"hi"),
                "2 bytes",
                ("hex 6869", "text hi"),
            ),
            (consent.ShownField(name="f", data=b"\xff"), "1 bytes", ("hex ff",)),
            (consent.ShownField(name="f"), "nothing", ()),
        ],
        ids=["text", "number", "text-bytes", "bytes", "nothing"],
    )
    def test_forms_of_a_field(
        self, field: consent.ShownField, form: str, value: tuple[str, ...]
    ) -> None:
        """A field is shown completely, with invisible characters escaped."""
        row = field_row(field)

        assert (form, value, False) == (row.form, row.value, row.is_hidden)

    def test_a_hidden_field(self) -> None:
        """Secret and long values are shown as length and salted hash."""
        digest = consent.hidden_sha256(SALT, "message", b"secret")
        row = field_row(consent.ShownField(name="message", length=6, sha256=digest))

        assert row.is_hidden
        assert ("6 bytes", (f"salted SHA-256 {digest}",)) == (row.form, row.value)

    def test_requirement_in_words(self) -> None:
        """A rule's requirement names number, roles and signature."""
        demand = ApprovalDemand(
            rule="purge", quorum=2, roles=(Role.OPERATOR, Role.AUDITOR), signed=True
        )

        assert (
            "purge: 2 of Operator or Auditor, signed with their own key"
            == demand_words(demand)
        )

    @pytest.mark.parametrize(
        ("state", "who", "offered"),
        [
            (ApprovalState.PENDING, "bob", {"approve", "deny"}),
            (ApprovalState.GRANTED, "bob", {"deny"}),
            (ApprovalState.PENDING, "Ann", {"cancel"}),
            (ApprovalState.GRANTED, "ann", {"cancel", "execute"}),
            (ApprovalState.CONSUMED, "ann", set()),
            (ApprovalState.RESERVED, "bob", set()),
            (ApprovalState.PENDING, "carl", {"withdraw"}),
            (ApprovalState.CONSUMED, "carl", set()),
        ],
        ids=["asked", "agreed", "own", "own-agreed", "done", "in-use", "said", "used"],
    )
    def test_offered_actions(
        self, state: ApprovalState, who: str, offered: set[str]
    ) -> None:
        """Pages offer the actions that the core would allow."""
        said = ops.DecisionInfo(principal="Carl", granted=True, at=LATE)
        approval = asked(state=state, decisions=(said,))
        person = Who(principal=who, roles=(), how=How.TOKEN, until=0.0)

        assert offered == {
            name
            for name, action in ACTIONS.items()
            if action.is_offered(approval, person)
        }


LATE = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEY = "0b6f7a3e-2f0c-4a39-9a1d-5d9d6b1f7c11"


class TestRebuilding:
    @pytest.mark.parametrize(
        "operation",
        [
            CREATE,
            ops.CreateKey(
                algorithm="Ed25519", exportable=True, usages=(KeyUsage.SIGN,)
            ),
            ops.RotateKey(key_id=KEY),
            ops.RotateKey(key_id=KEY, staged=True),
            ops.UpdateKey(key_id=KEY, tags=(), description=""),
            ops.RevokeKey(
                key_id=KEY,
                version=2,
                reason="lost",
                compromised_at=datetime(2026, 1, 1, 12, tzinfo=UTC),
            ),
            ops.DestroyKey(key_id=KEY, waiting_days=0),
            ops.SetRotation(key_id=KEY, max_age_days=90),
            ops.BeginLedger(reason="lost"),
        ],
        ids=lambda operation: type(operation).__name__,
    )
    def test_rebuilt_operation_is_equal(self, operation: Operation[Any]) -> None:
        """A rebuilt operation equals the requested one."""
        shown = core_present(operation, requester="ann", document=None, salt=SALT)

        assert operation == rebuild_operation(shown)

    @pytest.mark.parametrize(
        "operation",
        [
            ops.Sign(key_id=KEY, message=b"m"),
            ops.ExportKey(key_id=KEY, wrapping_key_id=KEY),
            ops.ImportKey(
                algorithm="AES-256-GCM", wrapped=bytes(2000), wrapping_key_id=KEY
            ),
        ],
        ids=lambda operation: type(operation).__name__,
    )
    def test_operations_that_are_not_rebuilt(self, operation: Operation[Any]) -> None:
        """Operations with downloads or hidden fields are not rebuilt."""
        shown = core_present(operation, requester="ann", document=None, salt=SALT)

        assert rebuild_operation(shown) is None

    def test_unknown_field(self) -> None:
        """Unknown fields are not ignored."""
        shown = core_present(
            ops.RotateKey(key_id=KEY), requester="ann", document=None, salt=SALT
        )
        more = (*shown.fields, consent.ShownField(name="later", number=1))

        assert rebuild_operation(msgspec.structs.replace(shown, fields=more)) is None
