# SPDX-License-Identifier: MIT
"""Key pages, over a memory HSM."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from html import unescape
from typing import Any

import msgspec
import pytest

from hsm_core.algorithms import ALGORITHMS
from hsm_core.errors import KeyNotFoundError, SignatureMismatchError
from hsm_core.model import KeyInfo, KeyState, Phase, UseInfo
from hsm_core.operations import (
    Approve,
    CreateKey,
    DescribeKey,
    DestroyKey,
    Encrypt,
    GetApproval,
    GetPublicKey,
    ListAuditEvents,
    ListKeys,
    ListVersions,
    RevokeKey,
    RotateKey,
    Sign,
    SuspendKey,
    UpdateKey,
    Verify,
)
from hsm_core.policies import parse_policy
from hsm_server.ui.keys import PAGES
from hsm_server.ui.keys.presenters import history_entries, key_values
from tests.server.ui_support import Browser, Shown, open_browser

HOSTILE = "</p><script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
ASKING = """
version: 1
extends: default
rules:
  - name: two-of-us
    effect: require-approval
    match: {operations: [RevokeKey, Sign]}
"""


def make(browser: Browser, name: str = "signer", **facts: Any) -> KeyInfo:
    """Create a key without the console."""
    given = {"algorithm": "Ed25519", **facts}
    made: KeyInfo = browser.execute(CreateKey(name=name, **given))
    return made


def described(browser: Browser, key: KeyInfo) -> KeyInfo:
    """Return a key's current metadata."""
    found: KeyInfo = browser.execute(DescribeKey(key_id=key.key_id))
    return found


def agree(browser: Browser, approval_id: str) -> None:
    """Approve a request as bob."""
    found = browser.execute(GetApproval(approval_id=approval_id), principal="bob")
    browser.execute(
        Approve(approval_id=approval_id, digest=found.digest), principal="bob"
    )


def path_of(key: KeyInfo, more: str = "") -> str:
    """Return the path of a key page."""
    return f"/ui/keys/{key.key_id}{more}"


async def act(browser: Browser, key: KeyInfo, action: str, **fields: str) -> Shown:
    """Open an action's form and submit it."""
    page = await browser.get(path_of(key, f"/{action}"))
    assert 200 == page.status, page.words
    return await browser.submit(page, path_of(key, f"/{action}"), fields)


async def offers(browser: Browser, key: KeyInfo) -> set[str]:
    """Return the actions that a key's page offers."""
    page = await browser.get(path_of(key))
    actions = page.text.partition('aria-label="Actions on this key"')[2]
    links = re.findall(r'href="[^"]*/([a-z-]+)"', actions.partition("</nav>")[0])
    return set(links)


async def attempt(browser: Browser, key: KeyInfo, what: str, **fields: str) -> Shown:
    """Run a test operation with a key."""
    path = path_of(key, f"/try/{what}")
    return await browser.submit(await browser.get(path), path, fields)


def part(shown: Shown, number: int = 1) -> str:
    """Return an output of a test operation, base64."""
    found = re.search(rf'id="part-{number}-base64"[^>]*>([^<]*)<', shown.text)
    assert found, shown.words
    return unescape(found[1])


class TestList:
    async def test_filters(self, signed_in: Browser) -> None:
        """Filters combine, and the form keeps them."""
        make(signed_in, "payments-a", tags=("prod",))
        make(signed_in, "payments-b", algorithm="AES-256-GCM", tags=("prod",))
        unnamed = make(signed_in, "")
        signed_in.execute(SuspendKey(key_id="payments-a"))

        searched = await signed_in.get("/ui/keys?search=PAYMENTS")
        both = await signed_in.get(
            "/ui/keys?search=pay&state=suspended&algorithm=Ed25519&tag=prod"
        )

        none = await signed_in.get("/ui/keys?search=pay&tag=dev")

        assert "2 keys" in searched.words
        assert "0 keys" in none.words
        assert f">{unnamed.key_id[:8]}…<" in (await signed_in.get("/ui/keys")).text
        assert unnamed.key_id not in searched.text
        assert "1 key" in both.words
        assert "payments-a" in both.words
        assert 'value="pay"' in both.text
        assert '<option value="suspended" selected>' in both.text

    async def test_pages(self, signed_in: Browser) -> None:
        """Paging shows every key once."""
        for number in range(30):
            make(signed_in, f"key-{number:02}")
        make(signed_in, "other")

        first = await signed_in.get("/ui/keys?search=key-")
        more = re.search(r'rel="next" href="([^"]*)"', first.text)
        assert more
        second = await signed_in.get(unescape(more[1]))

        names = [re.findall(r">(key-\d\d)<", page.text) for page in (first, second)]
        assert [25, 5] == [len(found) for found in names]
        assert 30 == len({name for found in names for name in found})
        assert 'rel="prev"' in second.text
        assert 'rel="next"' not in second.text
        beyond = await signed_in.get("/ui/keys?search=key-&page=9")
        assert 'rel="prev" href="/ui/keys?search=key-&amp;page=2"' in beyond.text

    async def test_fragment_for_scripts(self, signed_in: Browser) -> None:
        """A script gets only the table."""
        make(signed_in)

        whole = await signed_in.get("/ui/keys?search=signer")
        fragment = await signed_in.get("/ui/keys?search=signer", HX_Request="true")

        assert "<html" in whole.text
        assert fragment.text.strip() in whole.text
        assert "signer" in fragment.words

    async def test_invalid_filter(self, signed_in: Browser) -> None:
        """An invalid filter shows an error and keeps the form."""
        shown = await signed_in.get("/ui/keys?state=lost")

        assert 422 == shown.status
        assert "state" in shown.words

    async def test_empty(self, signed_in: Browser) -> None:
        """An empty store and an empty result have different messages."""
        nothing = await signed_in.get("/ui/keys")
        none = await signed_in.get("/ui/keys?search=nothing")

        assert "No keys yet." in nothing.words
        assert "No key matches." in none.words


class TestPage:
    async def test_metadata_and_links(self, signed_in: Browser) -> None:
        """A key's page shows metadata, versions, usage, public key and actions."""
        key = make(signed_in, description="Signs releases", tags=("prod",))
        signed_in.execute(Sign(key_id=key.key_id, message=b"x"))
        signed_in.execute(RotateKey(key_id=key.key_id))
        public = signed_in.execute(GetPublicKey(key_id=key.key_id))

        shown = await signed_in.get(path_of(key))

        for text in (key.key_id, "Signs releases", "prod", "2 current", "retired"):
            assert text in shown.words
        assert " ".join(public.pem.split()) in shown.words
        for action in ("rotate", "rollback", "suspend", "edit", "revoke", "destroy"):
            assert f'href="{path_of(key, f"/{action}")}"' in shown.text
        assert "no-store" == shown.headers["Cache-Control"]

    async def test_by_name(self, signed_in: Browser) -> None:
        """A key's page is also found by name."""
        key = make(signed_in)

        shown = await signed_in.get("/ui/keys/signer")

        assert key.key_id in shown.words

    async def test_no_such_key(self, signed_in: Browser) -> None:
        """Unknown keys and pages are 404."""
        assert 404 == (await signed_in.get("/ui/keys/nothing")).status
        assert 404 == (await signed_in.get("/ui/keys/nothing/revoke")).status
        assert 404 == (await signed_in.get("/ui/keys/<b>")).status

    @pytest.mark.parametrize("form", ["pem", "der", "jwk"])
    async def test_downloads(self, signed_in: Browser, form: str) -> None:
        """The public key of each version can be downloaded in each format."""
        key = make(signed_in)
        signed_in.execute(RotateKey(key_id=key.key_id))
        public = signed_in.execute(GetPublicKey(key_id=key.key_id, version=1))
        query = f"?form={form}&version=1"

        answer = await signed_in.get(path_of(key, f"/public-key{query}"))

        expected = {"pem": public.pem.encode(), "der": public.der}
        if form in expected:
            assert expected[form] == answer.body
        else:
            assert public.jwk.x in answer.text
        assert (
            f'attachment; filename="signer-v1.{form}"'
            == (answer.headers["Content-Disposition"])
        )

    async def test_no_public_key(self, signed_in: Browser) -> None:
        """A symmetric key has no public key to download."""
        secret = make(signed_in, "secret", algorithm="AES-256-GCM")
        composite = make(signed_in, "both", algorithm="MLDSA44-ECDSA-P256-SHA256")

        assert "Public key" not in (await signed_in.get(path_of(secret))).words
        assert 422 == (await signed_in.get(path_of(secret, "/public-key"))).status
        jwk = await signed_in.get(path_of(composite, "/public-key?form=jwk"))
        assert 422 == jwk.status

    async def test_history(self, signed_in: Browser) -> None:
        """The history shows a key's audit records and last use."""
        key = make(signed_in)
        sign = Sign(key_id=key.key_id, message=b"x")
        signed_in.execute(sign, principal="carol")
        bad = Verify(key_id=key.key_id, message=b"x", signature=bytes(64))
        with pytest.raises(SignatureMismatchError):
            signed_in.execute(bad, principal="dave")
        signed_in.execute(RotateKey(key_id=key.key_id))

        whole = await signed_in.get(path_of(key, "/history"))
        fragment = await signed_in.get(path_of(key, "/history"), HX_Request="true")

        assert "Last used by carol : Sign" in whole.words
        assert "RotateKey" in whole.words
        assert "<html" not in fragment.text
        assert "Last used by carol" in fragment.words
        listed = signed_in.execute(ListAuditEvents(key_id=key.key_id)).items
        unfinished = [e for e in listed if e.event.phase is Phase.INTENT]
        assert unfinished == list(history_entries(unfinished))
        assert len(listed) - len(unfinished) == len(history_entries(listed))

    async def test_older_history(self, signed_in: Browser) -> None:
        """The history pages back to the first record."""
        key = make(signed_in)
        for number in range(25):
            update = UpdateKey(key_id=key.key_id, description=str(number))
            signed_in.execute(update)

        path, kinds = path_of(key, "/history"), []
        while path:
            page = await signed_in.get(path)
            kinds += re.findall(r"<strong>(\w+Key)</strong>", page.text)
            older = re.search(r'href="([^"]*start=\d+)"', page.text)
            path = unescape(older[1]) if older else ""

        assert ["UpdateKey"] * 25 + ["CreateKey"] == kinds

    async def test_policy(self, signed_in: Browser) -> None:
        """The policy page explains the decision for any principal."""
        key = make(signed_in)
        query = "?operation=DestroyKey&principal=bob&role=Operator"

        mine = await signed_in.get(path_of(key, "/policy"))
        his = await signed_in.get(path_of(key, f"/policy{query}"))
        nobody = await signed_in.get(path_of(key, "/policy?operation=Nothing"))

        assert "Sign allowed" in mine.words
        assert "DestroyKey denied" in his.words
        assert 422 == nobody.status

    async def test_policy_of_related_operation(self) -> None:
        """The policy page shows twin operations and their rules."""
        rule = (
            "version: 1\nextends: default\nrules:\n  - name: sealed\n    effect: deny\n"
            "    match: {operations: [Open]}\n"
        )
        async with open_browser(policy=parse_policy(rule)) as browser:
            await browser.sign_in()
            key = make(browser, "mailbox", algorithm="ML-KEM-768")
            query = "?operation=Decapsulate&principal=bob&role=Operator"
            page = await browser.get(path_of(key, f"/policy{query}"))

        assert "Decapsulate denied" in page.words
        assert "Also evaluated as Open. The strictest decision applies." in page.words

    @pytest.mark.parametrize(
        ("uses", "percent"), [(0, 0), (79, 79), (100, 100), (150, 100)]
    )
    async def test_usage_limit(
        self, signed_in: Browser, uses: int, percent: int
    ) -> None:
        """A usage meter shows at most 100 percent."""
        use = UseInfo(uses=uses, limit=100)
        key = msgspec.structs.replace(make(signed_in), use=use)

        assert percent == key_values(key)["used_percent"]

    async def test_every_state(self, signed_in: Browser) -> None:
        """A key's page works in every state."""
        states = {}
        for name in ("revoked", "waiting", "gone", "staged"):
            key = make(signed_in, name, staged=name == "staged")
            if name == "revoked":
                signed_in.execute(RevokeKey(key_id=name, reason="lost"))
            if name == "waiting":
                signed_in.execute(DestroyKey(key_id=name, waiting_days=7))
            if name == "gone":
                signed_in.execute(DestroyKey(key_id=name, waiting_days=0))
            page = await signed_in.get(path_of(key))
            states[name] = (page.status, described(signed_in, key).state)
            if name == "gone":
                dates = re.findall(r'<li><span class="hint">(\w+)</span>', page.text)
                assert ["created", "retired", "destroyed"] == dates
            assert 200 == (await signed_in.get(path_of(key, "/history"))).status

        assert {
            "revoked": (200, KeyState.REVOKED),
            "waiting": (200, KeyState.PURGE_SCHEDULED),
            "gone": (200, KeyState.DESTROYED),
            "staged": (200, KeyState.STAGED),
        } == states


class TestCreation:
    async def test_choose_and_create(self, signed_in: Browser) -> None:
        """A key is created from an algorithm choice and a form."""
        choice = await signed_in.get("/ui/keys/new")
        assert 'href="/ui/keys/new?algorithm=ML-KEM-768"' in choice.text
        page = await signed_in.get("/ui/keys/new?algorithm=ML-KEM-768")
        assert "AES-192" in page.words
        for algorithm in ALGORITHMS:
            assert 1 == choice.text.count(f">{algorithm.value}<")
        fields = {"name": "inbox", "tags": "a b", "description": "x\r\ny"}

        sent = [("form_token", page.hidden("form_token"))]
        sent += [("operation_id", page.hidden("operation_id"))]
        sent += [("algorithm", "ML-KEM-768"), ("usages", "encrypt")]
        sent += [("usages", "decrypt"), ("exportable", "yes"), *fields.items()]
        shown = await signed_in.post("/ui/keys/new", sent)
        again = await signed_in.post("/ui/keys/new", sent)

        made = signed_in.execute(DescribeKey(key_id="inbox"))
        assert (303, path_of(made)) == (shown.status, shown.location)
        assert shown.location == again.location
        assert ("a", "b") == made.tags
        assert {"encrypt", "decrypt"} == {usage.value for usage in made.usages}
        assert "x\ny" == made.description
        assert made.exportable
        assert "Key created." in (await signed_in.follow(shown)).words

    async def test_errors_beside_fields(self, signed_in: Browser) -> None:
        """Errors are shown at their fields, and input is kept."""
        make(signed_in, "taken")
        page = await signed_in.get("/ui/keys/new?algorithm=Ed25519")
        fields = {"usages": "sign", "description": "stays"}

        bad = await signed_in.submit(
            page, "/ui/keys/new", {**fields, "name": "Not a name"}
        )
        taken = await signed_in.submit(
            page, "/ui/keys/new", {**fields, "name": "taken"}
        )
        unusable = await signed_in.submit(page, "/ui/keys/new", {"name": "x"})

        assert [422, 409, 422] == [p.status for p in (bad, taken, unusable)]
        assert 'id="error-name"' in bad.text
        assert "stays" in bad.words
        assert "stays" in taken.words
        assert 'id="error-usages"' in unusable.text
        assert 1 == signed_in.execute(ListKeys()).total

    async def test_no_such_algorithm(self, signed_in: Browser) -> None:
        """An unavailable algorithm can't be chosen."""
        assert 422 == (await signed_in.get("/ui/keys/new?algorithm=ROT13")).status


class TestActions:
    async def test_every_action(self, signed_in: Browser) -> None:
        """Every action is offered where it fits, executed, and shows a message."""
        key = make(signed_in)
        active = "rotate suspend edit rotation revoke destroy"
        steps: list[tuple[str, dict[str, str], KeyState, str]] = [
            ("suspend", {"reason": "audit"}, KeyState.SUSPENDED, active),
            (
                "resume",
                {},
                KeyState.ACTIVE,
                "rotate resume edit rotation revoke destroy",
            ),
            ("rotate", {}, KeyState.ACTIVE, active),
            ("rollback", {"version": "1"}, KeyState.ACTIVE, f"{active} rollback"),
            ("rotate", {"staged": "yes"}, KeyState.ACTIVE, f"{active} rollback"),
            (
                "activate",
                {},
                KeyState.ACTIVE,
                "activate rollback suspend edit rotation revoke destroy",
            ),
            (
                "rotation",
                {"max_age_days": "90", "max_uses": "1"},
                KeyState.ACTIVE,
                f"{active} rollback",
            ),
            (
                "edit",
                {"name": "renamed", "owner": "bob", "tags": "a, b c"},
                KeyState.ACTIVE,
                f"{active} rollback",
            ),
            (
                "destroy",
                {"waiting_days": "7", "confirm": " renamed "},
                KeyState.PURGE_SCHEDULED,
                f"{active} rollback",
            ),
            ("cancel-destroy", {}, KeyState.ACTIVE, "cancel-destroy edit destroy"),
            (
                "revoke",
                {
                    "version": "1",
                    "compromised_at": "2026-01-31T12:00",
                    "confirm": "renamed",
                },
                KeyState.ACTIVE,
                f"{active} rollback",
            ),
            (
                "revoke",
                {"reason": "lost", "confirm": "renamed"},
                KeyState.REVOKED,
                f"{active} rollback",
            ),
            (
                "destroy",
                {"waiting_days": "0", "confirm": "renamed"},
                KeyState.DESTROYED,
                "rotate edit rotation revoke destroy",
            ),
        ]

        for action, fields, state, offered in steps:
            assert set(offered.split()) == await offers(signed_in, key)
            shown = await act(signed_in, key, action, **fields)
            assert (303, path_of(key)) == (shown.status, shown.location), shown.words
            assert state is described(signed_in, key).state
            followed = await signed_in.follow(shown)
            assert 200 == followed.status
            if action == "rotation":
                assert "after 90 days or 1 use" in followed.words
                assert "1 uses" not in followed.words

        assert set() == await offers(signed_in, key)
        done = described(signed_in, key)
        assert ("renamed", "bob") == (done.name, done.owner)
        assert ("a", "b", "c") == done.tags
        versions = signed_in.execute(ListVersions(key_id=key.key_id)).items
        compromised = datetime(2026, 1, 31, 12, tzinfo=UTC)
        assert [compromised, None] == [v.compromised_at for v in versions[:2]]
        assert 4 == len(versions)

    @pytest.mark.parametrize(
        ("action", "fields", "field"),
        [
            ("destroy", {"confirm": "signers"}, "confirm"),
            ("destroy", {"confirm": "signer", "waiting_days": "-1"}, "waiting_days"),
            ("destroy", {"confirm": "signer", "waiting_days": "9999"}, "waiting_days"),
            ("suspend", {"reason": "a\nb"}, "reason"),
            ("rotation", {"max_uses": "1e3"}, "max_uses"),
            (
                "revoke",
                {"confirm": "signer", "compromised_at": "then"},
                "compromised_at",
            ),
            ("edit", {"owner": "alice", "name": "Upper"}, "name"),
            ("edit", {"owner": ""}, "owner"),
        ],
    )
    async def test_invalid_fields(
        self, signed_in: Browser, action: str, fields: dict[str, str], field: str
    ) -> None:
        """A rejected form names the field in words, and keeps its input."""
        key = make(signed_in)

        shown = await act(signed_in, key, action, **fields)

        assert 422 == shown.status
        assert f'id="error-{field}"' in shown.text
        assert "Expected" not in shown.words
        # Who sees nothing is led to what was wrong.
        assert re.search(rf'id="field-{field}"[^>]* autofocus', shown.text)
        for value in fields.values():
            assert value in unescape(shown.text)
        assert key.generation == described(signed_in, key).generation

    async def test_a_double_click(self, signed_in: Browser) -> None:
        """A form submitted twice is executed once, with equal responses."""
        key = make(signed_in)
        path = path_of(key, "/rotate")
        page = await signed_in.get(path)

        first = await signed_in.submit(page, path)
        second = await signed_in.submit(page, path)

        assert [303, 303] == [first.status, second.status]
        assert 2 == described(signed_in, key).version

    @pytest.mark.parametrize("action", ["rotate", "suspend", "edit", "destroy"])
    async def test_a_stale_page(self, signed_in: Browser, action: str) -> None:
        """A stale form is rejected."""
        key = make(signed_in)
        path = path_of(key, f"/{action}")
        page = await signed_in.get(path)
        signed_in.execute(UpdateKey(key_id=key.key_id, description="changed since"))
        before = described(signed_in, key)

        fields = {"owner": "bob", "name": "", "confirm": "signer"}
        shown = await signed_in.submit(page, path, fields)

        assert 412 == shown.status
        assert "No change was made" in shown.words
        assert f'href="{path_of(key)}"' in shown.text
        assert before.generation == described(signed_in, key).generation

    async def test_conflict_with_state(self, signed_in: Browser) -> None:
        """The HSM rejects actions that the state does not allow."""
        key = make(signed_in)

        shown = await act(signed_in, key, "resume")

        assert 409 == shown.status
        assert 1 == described(signed_in, key).generation

    @pytest.mark.parametrize("page", [p for p in PAGES if p.method == "POST"])
    async def test_form_of_another_session(self, signed_in: Browser, page: Any) -> None:
        """A form of another session is rejected."""
        key = make(signed_in)
        path = "/ui" + re.sub(r"\{key_id:.*?\}(?=/|$)", key.key_id, page.path)
        path = re.sub(r"\{(action|trial):([a-z-]+)[^}]*\}", r"\2", path)
        approval = "3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11"
        path = re.sub(r"\{approval_id:.*", approval, path)
        events = signed_in.execute(ListKeys()).total

        shown = await signed_in.post(path, {"operation_id": "x", "form_token": "y"})

        assert 403 == shown.status, (path, shown.words)
        assert "stale_form" in shown.words
        assert events == signed_in.execute(ListKeys()).total
        assert key.generation == described(signed_in, key).generation


class TestRoles:
    async def test_auditor(self, browser: Browser) -> None:
        """An auditor is offered no actions, and the HSM denies them."""
        await browser.sign_in(["Auditor"])
        key = make(browser)

        listed = await browser.get("/ui/keys")
        shown = await browser.get(path_of(key))
        form = await browser.get(path_of(key, "/rotate"))
        refused = await browser.submit(form, path_of(key, "/rotate"))

        assert "Create key" not in listed.words
        assert "/rotate" not in shown.text
        assert "History" in shown.words
        assert 403 == refused.status
        assert 1 == described(browser, key).version

    async def test_operator(self, browser: Browser) -> None:
        """Without audit rights, the page omits the history and causes no denial."""
        await browser.sign_in(["Operator"])
        key = make(browser)

        shown = await browser.get(path_of(key))
        form = await browser.get(path_of(key, "/rotate"))
        policy = await browser.get(path_of(key, "/policy"))

        assert "History" not in shown.words
        assert "Policy decision" not in form.words
        assert "Your roles do not allow" in policy.words
        assert 403 == (await browser.get(path_of(key, "/history"))).status

    async def test_hidden_key(self) -> None:
        """A hidden key is not found."""
        rule = (
            "version: 1\nextends: default\nrules:\n  - name: hidden\n    effect: deny\n"
            "    match: {operations: [DescribeKey, ListKeys, ListVersions],"
            " owners: [bob]}\n"
        )
        async with open_browser(policy=parse_policy(rule)) as browser:
            await browser.sign_in()
            make(browser, "his", owner="bob")

            page = await browser.get("/ui/keys/his")
            listed = await browser.get("/ui/keys?search=his")

        assert 404 == page.status
        assert KeyNotFoundError.code in page.words
        assert "0 keys" in listed.words


class TestApprovals:
    @pytest.fixture
    async def asking(self) -> AsyncIterator[Browser]:
        """Yield a browser over an HSM with dual control."""
        async with open_browser(policy=parse_policy(ASKING)) as browser:
            await browser.sign_in()
            yield browser

    async def _ask(self, browser: Browser, key: KeyInfo) -> str:
        shown = await act(
            browser, key, "revoke", confirm="signer", reason="lost", version=""
        )
        assert 303 == shown.status, shown.words
        found = re.fullmatch(r"/ui/approvals/([0-9a-f-]{36})", shown.location)
        assert found
        return found[1]

    async def test_request_approve_execute(self, asking: Browser) -> None:
        """An operation that needs approval is requested, then executed unchanged."""
        key = make(asking)
        form = await asking.get(path_of(key, "/revoke"))
        assert "needs approval" in form.words

        approval_id = await self._ask(asking, key)
        waiting = await asking.get(path_of(key))
        path = f"/ui/approvals/{approval_id}"
        early = await asking.get(path)
        agree(asking, approval_id)
        granted = await asking.get(path_of(key))
        page = await asking.get(path)
        done = await asking.submit(page, f"{path}/execute")

        assert "Waiting for approval" in waiting.words
        assert "Execute" not in early.words
        assert f'href="{path}"' in granted.text
        assert "lost" in page.words
        assert (303, path_of(key)) == (done.status, done.location)
        assert KeyState.REVOKED is described(asking, key).state
        (version,) = asking.execute(ListVersions(key_id=key.key_id)).items
        assert "lost" == version.reason
        used = asking.execute(GetApproval(approval_id=approval_id))
        assert "consumed" == used.state.value

    async def test_before_it_is_granted(self, asking: Browser) -> None:
        """A pending request can't be executed."""
        key = make(asking)
        approval_id = await self._ask(asking, key)
        path = f"/ui/approvals/{approval_id}"
        page = await asking.get(path_of(key, "/rotate"))
        digest = asking.execute(GetApproval(approval_id=approval_id)).digest

        fields = {"digest": digest, "generation": "1", "key_generation": "0"}
        await asking.submit(page, f"{path}/execute", fields)

        assert KeyState.ACTIVE is described(asking, key).state

    async def test_another_digest(self, asking: Browser) -> None:
        """A form with another digest is rejected."""
        key = make(asking)
        approval_id = await self._ask(asking, key)
        agree(asking, approval_id)
        path = f"/ui/approvals/{approval_id}"
        page = await asking.get(path)

        shown = await asking.submit(page, f"{path}/execute", {"digest": "00" * 32})

        assert 409 == shown.status
        assert KeyState.ACTIVE is described(asking, key).state

    async def test_request_of_another_user(self, asking: Browser) -> None:
        """Only the requester can execute a request."""
        key = make(asking)
        approval_id = await self._ask(asking, key)
        agree(asking, approval_id)
        asking.cookies.clear()
        await asking.sign_in(sub="bob")

        page = await asking.get(f"/ui/approvals/{approval_id}")
        approval = asking.execute(GetApproval(approval_id=approval_id))
        seen = {"digest": approval.digest, "generation": "2", "key_generation": "1"}
        form = await asking.get(path_of(key, "/rotate"))
        shown = await asking.submit(form, f"/ui/approvals/{approval_id}/execute", seen)

        assert "Execute" not in page.words
        assert 404 == shown.status
        assert KeyState.ACTIVE is described(asking, key).state

    async def test_test_operation_needs_approval(self, asking: Browser) -> None:
        """A test that needs approval keeps its input and works once approved."""
        key = make(asking)

        first = await attempt(asking, key, "sign", message="a contract")
        found = re.search(r"/ui/approvals/([0-9a-f-]{36})", first.text)
        assert found
        agree(asking, found[1])
        second = await attempt(asking, key, "sign", message="a contract")

        assert 202 == first.status
        assert "a contract" in first.words
        assert 200 == second.status
        assert 64 == len(base64.b64decode(part(second)))


class TestUsage:
    @pytest.mark.parametrize(
        "algorithm",
        ["Ed25519", "EC-P256", "RSA-2048", "ML-DSA-44", "MLDSA65-Ed25519-SHA512"],
    )
    async def test_signatures(self, signed_in: Browser, algorithm: str) -> None:
        """A signature verifies for its message only."""
        key = make(signed_in, algorithm=algorithm)
        signed = await attempt(signed_in, key, "sign", message="a contract")
        fields = {"message": "a contract", "signature": part(signed)}
        fields["signature_form"] = "base64"

        good = await attempt(signed_in, key, "verify", **fields)
        bad = await attempt(
            signed_in, key, "verify", **{**fields, "message": "another"}
        )

        assert 200 == good.status
        assert "Valid signature (version 1)." in good.words
        assert 422 == bad.status
        assert "failed" in bad.words
        assert "Valid signature" not in bad.words

    @pytest.mark.parametrize(
        "algorithm", ["AES-256-GCM", "ML-KEM-768", "MLKEM768-X25519-SHA3-256"]
    )
    async def test_encryption(self, signed_in: Browser, algorithm: str) -> None:
        """A ciphertext decrypts only with the same additional data."""
        key = make(signed_in, algorithm=algorithm)
        made = await attempt(
            signed_in, key, "encrypt", plaintext="secret <b>", aad="for you"
        )
        fields = {"ciphertext": part(made), "ciphertext_form": "base64"}

        right = await attempt(signed_in, key, "decrypt", aad="for you", **fields)
        wrong = await attempt(signed_in, key, "decrypt", aad="for me", **fields)

        assert "secret <b>" in right.words
        assert "secret <b>" not in right.text
        assert 422 == wrong.status
        assert "secret" not in wrong.words

    async def test_encapsulation(self, signed_in: Browser) -> None:
        """Encapsulation and decapsulation give the same secret."""
        key = make(signed_in, algorithm="ML-KEM-512")
        made = await attempt(signed_in, key, "encapsulate")

        opened = await attempt(
            signed_in,
            key,
            "decapsulate",
            ciphertext=part(made),
            ciphertext_form="base64",
        )

        assert part(made, 2) == part(opened)
        assert "<details><summary>Shared secret" in made.text

    async def test_macs(self, signed_in: Browser) -> None:
        """A MAC verifies, and a wrong one is rejected."""
        key = make(signed_in, algorithm="HMAC-SHA-256")
        made = await attempt(signed_in, key, "mac", message="m")
        fields = {"mac": part(made), "mac_form": "base64"}

        good = await attempt(signed_in, key, "verify-mac", message="m", **fields)
        bad = await attempt(signed_in, key, "verify-mac", message="n", **fields)

        assert [200, 422] == [good.status, bad.status]

    async def test_inputs_are_not_stored(self, signed_in: Browser) -> None:
        """Inputs and outputs are in no URL, log or cache."""
        key = make(signed_in, algorithm="AES-256-GCM")

        shown = await attempt(signed_in, key, "encrypt", plaintext="uncommon-input")

        assert "no-store" == shown.headers["Cache-Control"]
        assert "Location" not in shown.headers
        assert "uncommon-input" not in signed_in.log.getvalue()
        assert part(shown) not in signed_in.log.getvalue()

    @pytest.mark.parametrize(
        ("text", "encoding", "message"),
        [
            ("héllo", "text", "héllo".encode()),
            ("aGk=\n", "base64", b"hi"),
            ("68 69", "hex", b"hi"),
            ("", "hex", b""),
        ],
    )
    async def test_encodings(
        self, signed_in: Browser, text: str, encoding: str, message: bytes
    ) -> None:
        """An input is decoded by its encoding."""
        key = make(signed_in)

        shown = await attempt(
            signed_in, key, "sign", message=text, message_form=encoding
        )

        signed = signed_in.execute(Sign(key_id=key.key_id, message=message))
        assert signed.signature == base64.b64decode(part(shown))

    @pytest.mark.parametrize(
        ("data", "is_text"),
        [(b"hi\n", True), (b"\xff", False), (b"a\x1b[2J", False)],
        ids=["text", "bytes", "escape"],
    )
    async def test_outputs(
        self, signed_in: Browser, data: bytes, is_text: bool
    ) -> None:
        """Bytes are shown as text only if printable."""
        key = make(signed_in, algorithm="AES-256-GCM")
        made = signed_in.execute(Encrypt(key_id=key.key_id, plaintext=data))
        fields = {"ciphertext": made.ciphertext.hex(), "ciphertext_form": "hex"}

        shown = await attempt(signed_in, key, "decrypt", **fields)

        assert data == base64.b64decode(part(shown))
        assert f">{data.hex()}<" in shown.text
        assert is_text is ('id="part-1-text"' in shown.text)

    async def test_too_long(self, signed_in: Browser) -> None:
        """Inputs have a maximum length."""
        key = make(signed_in)

        shown = await attempt(signed_in, key, "sign", message="x" * 65_537)

        assert 413 == shown.status

    @pytest.mark.parametrize(
        ("text", "encoding"),
        [("zz", "hex"), ("6", "hex"), ("aGk", "base64"), ("aGk=?", "base64")],
    )
    async def test_bad_input(
        self, signed_in: Browser, text: str, encoding: str
    ) -> None:
        """An input in the wrong encoding shows an error and is kept."""
        key = make(signed_in)

        shown = await attempt(
            signed_in, key, "sign", message=text, message_form=encoding
        )

        assert 422 == shown.status
        assert f"Not valid {encoding}." in shown.words
        assert f'<option value="{encoding}" selected>' in shown.text

    async def test_usage_not_allowed(self, signed_in: Browser) -> None:
        """Test operations are limited to the key's usages."""
        key = make(signed_in, usages=("sign",))

        page = await signed_in.get(path_of(key))
        answers = [
            (await signed_in.get(path_of(key, f"/try/{name}"))).status
            for name in ("sign", "verify", "encrypt")
        ]

        assert [200, 409, 409] == answers
        assert ["sign"] == re.findall(r"/try/([a-z-]+)", page.text)


class TestHostileText:
    async def test_markup_is_escaped(self, browser: Browser) -> None:
        """Input is never markup, on any page."""
        await browser.sign_in(sub=HOSTILE)
        key = make(
            browser, description=f"{HOSTILE}\n\u202e", owner=HOSTILE, usages=("sign",)
        )
        browser.execute(Sign(key_id=key.key_id, message=b""), principal=HOSTILE)
        browser.execute(RotateKey(key_id=key.key_id))
        browser.execute(RevokeKey(key_id=key.key_id, version=1, reason=HOSTILE))

        paths = ["/ui/keys", f"/ui/keys?search={'%3C%22'}", path_of(key)]
        paths += [path_of(key, more) for more in ("/history", "/policy", "/edit")]
        paths += ["/ui/keys?search=%3Cscript%3E&tag=%3Cscript%3E"]
        paths += [path_of(key, "/policy?principal=%3Cscript%3E&operation=%3Cscript%3E")]
        pages = [await browser.get(path) for path in paths]
        pages.append(await attempt(browser, key, "sign", message=HOSTILE))
        pages.append(
            await act(browser, key, "edit", name=HOSTILE, tags=HOSTILE, owner="x")
        )

        for page in pages:
            assert "<script>alert" not in page.text
            assert "<img" not in page.text
            assert "<script>" not in page.text
        assert "\u202e" not in pages[2].text
        assert "⟨U+202E⟩" in pages[2].words
        assert HOSTILE in pages[2].words
        assert HOSTILE in pages[3].words
