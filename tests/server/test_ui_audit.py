# SPDX-License-Identifier: MIT
"""Audit pages: records, live view and verification."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from html import unescape
from urllib.parse import urlencode

import pytest

from hsm_core import operations as ops
from hsm_core.errors import AuditTamperedError, KeyNotFoundError
from hsm_core.model import Role
from hsm_core.testing import Faults
from hsm_server.ui import audit
from tests.server.ipc_support import OverSockets
from tests.server.support import claims, mint
from tests.server.ui_support import Browser, open_browser

NASTY = "<img src=x onerror=alert(1)>"


@pytest.fixture
async def busy(signed_in: Browser) -> Browser:
    """Yield a browser and an audit log with a key, a denial and hostile text."""
    signed_in.execute(ops.CreateKey(algorithm="Ed25519", name="signer"), "ann")
    signed_in.execute(ops.Sign(key_id="signer", message=b"m"), NASTY)
    with pytest.raises(KeyNotFoundError):
        signed_in.execute(ops.RotateKey(key_id="nothing"), "bob")
    return signed_in


async def test_list(busy: Browser) -> None:
    """The list shows actor, operation, key and outcome, newest first."""
    page = await busy.get("/ui/audit")

    assert 200 == page.status
    for words in ("Sign", "CreateKey", "signer", "key_not_found", "ann", "bob"):
        assert words in page.words
    assert page.text.index("key_not_found") < page.text.index("CreateKey")
    assert "Latest record" in page.words


async def test_hostile_text_stays_text(busy: Browser) -> None:
    """An actor's name is never markup."""
    listed = await busy.get("/ui/audit")
    found = busy.execute(ops.ListAuditEvents(kind=("Sign",), limit=1)).items[0]
    shown = await busy.get(f"/ui/audit/{found.event.seq}")

    for page in (listed, shown):
        assert NASTY not in page.text
        assert NASTY in page.words.replace("&lt;", "<") or "&lt;img" in page.text


@pytest.mark.parametrize(
    ("query", "kinds"),
    [
        ("principal=ann", {"CreateKey"}),
        ("key_id=signer", {"CreateKey", "Sign"}),
        ("kind=Sign", {"Sign"}),
        ("kind=Sign,+CreateKey", {"Sign", "CreateKey"}),
        ("outcome=failed", {"RotateKey"}),
        ("outcome=key_not_found&kind=RotateKey", {"RotateKey"}),
        ("until=2001-01-01T00:00", set()),
        ("since=2001-01-01T00:00&kind=Sign", {"Sign"}),
    ],
    ids=["actor", "key", "operation", "operations", "failed", "code", "until", "since"],
)
async def test_filters(busy: Browser, query: str, kinds: set[str]) -> None:
    """Each filter excludes other records and keeps its value."""
    page = await busy.get(f"/ui/audit?{query}")

    rows = page.text.partition('<tbody id="events">')[2].partition("</tbody>")[0]
    known = ("CreateKey", "Sign", "RotateKey")
    assert kinds == {
        kind for kind in known if f'<td data-label="Operation">{kind}<' in rows
    }
    assert "Clear" in page.words


async def test_empty_result(busy: Browser) -> None:
    """An empty result names the filters as the reason."""
    page = await busy.get("/ui/audit?principal=nobody")

    assert "matches the filters" in page.words
    assert "0 events" not in page.words


@pytest.mark.parametrize(
    "query",
    [
        *("start=x", "start=-1", "since=soon", "kind=" + "x" * 65, "kind=Sgin"),
        "start=1&start=2",
    ],
    ids=["start", "negative", "since", "kind", "unknown", "twice"],
)
async def test_odd_queries(signed_in: Browser, query: str) -> None:
    """Invalid filters are rejected."""
    assert (await signed_in.get(f"/ui/audit?{query}")).status in {400, 422}


async def test_paging(signed_in: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paging covers every record without a gap."""
    monkeypatch.setattr(audit, "PER_PAGE", 2)
    for _ in range(4):
        signed_in.execute(ops.VerifyAudit(limit=1))
    seen: list[str] = []
    path = "/ui/audit?kind=VerifyAudit"
    while path:
        page = await signed_in.get(path)
        rows = page.text.partition('<tbody id="events">')[2].partition("</tbody>")[0]
        seen += [part.partition('"')[0] for part in rows.split('href="/ui/audit/')[1:]]
        _, _, rest = page.text.partition('rel="next" href="')
        path = rest.partition('"')[0].replace("&amp;", "&")

    assert 4 == len(seen) == len(set(seen))
    assert sorted(seen, key=int, reverse=True) == seen


async def test_one_record(busy: Browser) -> None:
    """A record's page shows all of it, with its hash and the previous one."""
    entry = busy.execute(ops.ListAuditEvents(kind=("Sign",), limit=1)).items[0]

    page = await busy.get(f"/ui/audit/{entry.event.seq}")

    assert entry.leaf_hash in page.words
    assert entry.event.prev in page.words
    assert f'"policy": "{entry.event.policy}"' in page.words
    missing = await busy.get("/ui/audit/999999")
    assert 404 == missing.status
    assert "does not exist yet" in missing.words


async def test_unavailable_audit_log() -> None:
    """An unavailable audit log is an error page with 503, not an empty list."""
    faults = Faults()
    async with open_browser(faults=faults) as browser:
        await browser.sign_in()
        faults.fail_trail()
        page = await browser.get("/ui/audit")
        record = await browser.get("/ui/audit/1")
        verdict = await browser.submit(
            await browser.get("/ui/audit/verify"), "/ui/audit/verify"
        )
        faults.heal_trail()
        healed = await browser.get("/ui/audit")

    assert [503, 503, 503] == [page.status, record.status, verdict.status]
    assert "The audit log is unavailable" in page.words
    assert "does not mean that the log is empty" in page.words
    assert 'id="events"' not in page.text
    assert "The log was not verified" in verdict.words
    assert 200 == healed.status


class TestVerification:
    async def test_progress(
        self, busy: Browser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Verification shows its progress until the newest record."""
        monkeypatch.setattr(audit, "_VERIFIED_AT_ONCE", 3)
        page = await busy.get("/ui/audit/verify")
        parts = []
        for _ in range(50):
            page = await busy.submit(page, "/ui/audit/verify", HX_Request="true")
            parts.append(page)
            if "Audit log intact" in page.words:
                break

        assert "<html" not in parts[0].text
        assert "3 of " in parts[0].words
        assert "<progress" in parts[0].text
        assert "Audit log intact" in parts[-1].words
        assert "from record 0 to the newest" in parts[-1].words

    async def test_without_scripts(self, busy: Browser) -> None:
        """Verification works without scripts."""
        page = await busy.submit(await busy.get("/ui/audit/verify"), "/ui/audit/verify")

        assert "<html" in page.text
        assert "Audit log intact" in page.words
        newest = busy.execute(ops.ListAuditEvents(limit=5)).items
        assert any(entry.leaf_hash in page.words for entry in newest)

    async def test_damage(
        self, signed_in: Browser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A damaged log shows the first invalid record and the reason."""

        async def execute(*args: object, **facts: object) -> None:
            raise AuditTamperedError("Record 7 is bad.", seq=7, reason="mac")

        page = await signed_in.get("/ui/audit/verify")
        monkeypatch.setattr("hsm_server.ui.view.View.execute", execute)
        shown = await signed_in.submit(page, "/ui/audit/verify")
        listed = await signed_in.get("/ui/audit")

        for broken in (shown, listed):
            assert 409 == broken.status
            assert "Integrity check failed" in broken.words
            assert "First invalid record 7" in broken.words
            assert "intact" not in broken.words

    async def test_service_is_denied(self, browser: Browser) -> None:
        """A service can't read or verify the audit log."""
        await browser.sign_in([Role.SERVICE])
        page = await browser.get("/ui/audit/verify")

        assert 403 == (await browser.get("/ui/audit")).status
        assert ">Audit</a>" not in (await browser.get("/ui")).text
        assert 403 == (await browser.submit(page, "/ui/audit/verify")).status


@pytest.mark.parametrize(
    ("begun", "next_seq", "words"),
    [
        (0, 10, "10 of 100 records, 10 %"),
        (50, None, "Verified 50 records, from record 50"),
        (0, 150, "100 of 100 records, 100 %"),
    ],
    ids=["part", "end-of-a-pruned-one", "grown"],
)
async def test_progress_numbers(
    signed_in: Browser,
    monkeypatch: pytest.MonkeyPatch,
    begun: int,
    next_seq: int | None,
    words: str,
) -> None:
    """Progress counts from the first verified record."""
    result = ops.AuditVerification(
        start_seq=begun, verified=1, next_seq=next_seq, head_seq=99, head_hash="00"
    )

    async def execute(*args: object, **facts: object) -> ops.AuditVerification:
        return result

    page = await signed_in.get("/ui/audit/verify")
    monkeypatch.setattr("hsm_server.ui.view.View.execute", execute)
    shown = await signed_in.submit(page, "/ui/audit/verify")

    assert words in shown.words


async def test_filters_survive_the_query(signed_in: Browser) -> None:
    """The form and the links of a page keep the filters."""
    query = urlencode(
        {"principal": "a&b=c", "kind": "Sign", "since": "2026-01-01T10:00"}
    )

    page = await signed_in.get(f"/ui/audit?{query}")

    for value in ("a&amp;b=c", "Sign", "2026-01-01T10:00"):
        assert f'value="{value}"' in page.text
    assert f"/ui/audit/live?{query}" in unescape(page.text)


class TestLiveView:
    async def test_rows(self, signed_in: Browser) -> None:
        """Each record is a table row, with hostile text escaped."""
        async with signed_in.stream("/ui/audit/live?kind=CreateKey") as lines:
            make = ops.CreateKey(algorithm="Ed25519", name="watched")
            await asyncio.to_thread(signed_in.execute, make, f"{NASTY}\u2028data: x")

            intent, row = await _entry(lines), await _entry(lines)

        assert ">intent<" in intent
        assert row.lstrip().startswith("<tr>")
        assert "watched" in row
        assert NASTY not in row
        assert "\u2028" not in row

    async def test_stream_ends_with_the_session(self, signed_in: Browser) -> None:
        """The stream ends with an error after sign-out."""
        async with signed_in.stream("/ui/audit/live?kind=CreateKey") as lines:
            await signed_in.submit(await signed_in.get("/ui"), "/ui/sign-out")

            event, data = await _event(lines)

        assert "problem" == event
        assert "authentication_failed" == json.loads(data)["code"]

    async def test_stream_starts_where_the_page_ends(self, signed_in: Browser) -> None:
        """The stream starts with the records written since the page was rendered."""
        signed_in.execute(ops.CreateKey(algorithm="Ed25519", name="between"))
        async with signed_in.stream("/ui/audit/live?start=0") as lines:
            rows = [await _entry(lines) for _ in range(3)]

        assert [0, 1, 2] == [
            int(row.partition("/ui/audit/")[2].partition('"')[0]) for row in rows
        ]

    async def test_between_two_processes(self) -> None:
        """A front end without state streams the audit log for a session."""
        over = OverSockets()
        async with open_browser(between=over) as browser:
            await browser.sign_in()
            async with browser.stream("/ui/audit/live?kind=ListAuditEvents") as lines:
                row = await _entry(lines)
            over.close()

        assert "ListAuditEvents" in row

    async def test_unauthenticated(self, browser: Browser) -> None:
        """A stream needs a session or a valid token."""
        assert 303 == (await browser.get("/ui/audit/live")).status
        token = mint(claims(), secret=b"another secret of at least 32 bytes")
        shown = await browser.get("/ui/audit/live", Authorization=f"Bearer {token}")
        assert 401 == shown.status


async def _event(lines: AsyncIterator[str]) -> tuple[str, str]:
    """Return type and data of the next event with data."""
    kind, data = "", []
    async for line in lines:
        name, _, value = line.partition(":")
        if name == "event":
            kind = value.strip()
        elif name == "data":
            data.append(value.removeprefix(" "))
        elif not line and data:
            return kind, "\n".join(data)
    raise AssertionError("The stream has ended.")


async def _entry(lines: AsyncIterator[str]) -> str:
    kind, data = await _event(lines)
    assert "entry" == kind, data
    return data
