# SPDX-License-Identifier: MIT
"""Retention pages: queue, legal holds, extensions and ledger."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from hsm_core import operations as ops
from hsm_core.model import KeyId, KeyInfo, Role
from hsm_core.operations import LedgerStatus, PurgeItem, RetentionReport
from hsm_server.ui import retention
from hsm_server.ui.forms import Field
from hsm_server.ui.rendering import render
from hsm_server.ui.retention import report_values
from tests.server.ui_support import Browser, Shown

AT = datetime(2026, 1, 1, tzinfo=UTC)
KEY = KeyId("0b6f7a3e-2f0c-4a39-9a1d-5d9d6b1f7c11")
NASTY = "<b>matter</b> 7"
REPORT = RetentionReport(
    enabled=True,
    policy_sha256="ab" * 32,
    default_days=30,
    loaded_at=AT,
    paused="leap",
    pause_approval_id="5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24",
    ledger=LedgerStatus(
        available=True, log_id="cd" * 16, head_seq=4, head_hash="ef" * 32
    ),
    queue=3,
    scheduled_total=2,
    completed_total=1,
    swept_at=AT,
    items=(
        PurgeItem(
            key_id=KEY,
            version=2,
            versions=(1, 2),
            state="scheduled",
            due_at=AT,
            window_days=30,
            rule="tag:<i>team</i>",
            purge_at=AT,
        ),
    ),
)


@pytest.fixture
def key_id(signed_in: Browser) -> str:
    """Return a key with two versions."""
    made = signed_in.execute(ops.CreateKey(algorithm="AES-256-GCM", name="vat"))
    signed_in.execute(ops.RotateKey(key_id="vat"))
    return str(made.key_id)


@pytest.fixture
def path(key_id: str) -> str:
    """Return the path of the key's page."""
    return path_of(key_id)


@pytest.fixture
async def page(signed_in: Browser, path: str) -> Shown:
    """Return the key's page."""
    return await signed_in.get(path)


def path_of(key_id: str) -> str:
    """Return the path of a key's page."""
    return f"/ui/retention/keys/{key_id}"


async def test_retention_is_off(signed_in: Browser) -> None:
    """Without retention, the page says so."""
    page = await signed_in.get("/ui/retention")

    assert 200 == page.status
    assert "Retention is off" in page.words


def shown(report: RetentionReport) -> str:
    """Render a report without server and session."""
    values = {
        **report_values(report),
        "key": Field(name="key", label="Key"),
        "alert": "",
        "who": None,
        "nav": (),
        "flash": "",
        "home": "/ui",
        "form_token": "t",
        "new_operation_id": lambda: "o",
    }
    return render("retention/overview.html", values)


def test_queue() -> None:
    """Each row shows key, due time, rule and purge time."""
    text = shown(REPORT)

    for words in (
        "scheduled",
        "30 days",
        "1, 2",
        KEY,
        "2026-01-01",
        "2 more in the queue",
    ):
        assert words in text
    assert "tag:&lt;i&gt;team&lt;/i&gt;" in text
    assert "the clock jumped" in text
    assert "/ui/approvals/5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24" in text


def test_the_ledger() -> None:
    """The page shows the ledger's head; a damaged ledger can be replaced."""
    lost = LedgerStatus(
        available=False,
        log_id="cd" * 16,
        head_seq=-1,
        head_hash="",
        problem="it was cut",
    )

    well, broken = shown(REPORT), shown(msgspec.structs.replace(REPORT, ledger=lost))

    assert "ef" * 32 in well
    assert "Start a new ledger" not in well
    assert "it was cut" in broken
    assert "Start a new ledger" in broken


@pytest.mark.parametrize(
    ("ledger", "problem"),
    [
        (None, ""),
        (REPORT.ledger, ""),
        (
            LedgerStatus(available=False, log_id="", head_seq=0, head_hash=""),
            "the ledger can't be written",
        ),
    ],
    ids=["none", "well", "not-writable"],
)
def test_ledger_problem(ledger: LedgerStatus | None, problem: str) -> None:
    """An unwritable ledger is not shown as intact."""
    report = msgspec.structs.replace(REPORT, ledger=ledger)

    assert problem == report_values(report)["ledger_problem"]


async def test_hold_and_release(
    signed_in: Browser, key_id: str, path: str, page: Shown
) -> None:
    """A hold is placed, listed and released."""
    held = await signed_in.submit(page, f"{path}/hold", {"reason": NASTY})
    page = await signed_in.follow(held)
    assert "Placed the legal hold." in page.words
    assert "&lt;b&gt;matter&lt;/b&gt; 7" in page.text
    assert "vat" in (await signed_in.get("/ui/retention/holds")).words

    released = await signed_in.submit(page, f"{path}/release", {"reason": "settled"})

    assert 303 == released.status
    assert "" == signed_in.execute(ops.DescribeKey(key_id=key_id)).hold
    assert (
        "No key is on legal hold" in (await signed_in.get("/ui/retention/holds")).words
    )


async def test_extend(signed_in: Browser, path: str, page: Shown) -> None:
    """An extension lasts until the end of a day and can't be shortened."""
    fields = {"version": "1", "until": "2090-12-31"}
    done = await signed_in.submit(page, f"{path}/extend", fields)
    assert 303 == done.status
    page = await signed_in.get(path)
    assert "2090-12-31 23:59:59 UTC" in page.words

    answers = [
        await signed_in.submit(page, f"{path}/extend", {**fields, **wrong})
        for wrong in ({"until": "2080-01-01"}, {"until": "x"}, {"version": "x"})
    ]

    assert [422, 422, 422] == [answer.status for answer in answers]
    for answer, name in zip(answers, ("until", "until", "version"), strict=True):
        assert f'id="error-{name}"' in answer.text
    assert 'value="2080-01-01"' in answers[0].text


async def test_rejected_input_is_kept(
    signed_in: Browser, key_id: str, path: str, page: Shown
) -> None:
    """A rejected form keeps its input and shows the error at its field."""
    long = {"reason": "matter " * 50}

    blank = await signed_in.submit(page, f"{path}/hold", {"reason": " "})
    wrong = await signed_in.submit(page, f"{path}/hold", long)
    lost = await signed_in.submit(page, "/ui/retention/ledger", long)

    assert [422, 422, 422] == [blank.status, wrong.status, lost.status]
    assert "Required: reason." in blank.words
    assert f'value="{long["reason"]}"' in wrong.text
    assert "At most 128 characters." in wrong.words
    assert 'aria-errormessage="error-reason"' in wrong.text
    assert "At most 128 characters." in lost.words
    assert "" == signed_in.execute(ops.DescribeKey(key_id=key_id)).hold


async def test_a_stale_page(
    signed_in: Browser, key_id: str, path: str, page: Shown
) -> None:
    """A stale form is rejected."""
    signed_in.execute(ops.RotateKey(key_id=key_id))

    late = await signed_in.submit(page, f"{path}/hold", {"reason": "late"})

    assert 412 == late.status
    assert "No change was made" in late.words
    assert "a different generation than expected" in late.words
    assert "" == signed_in.execute(ops.DescribeKey(key_id=key_id)).hold


async def test_a_double_click(
    signed_in: Browser, key_id: str, path: str, page: Shown
) -> None:
    """A form submitted twice is one hold and no error."""
    answers = [
        await signed_in.submit(page, f"{path}/hold", {"reason": "matter"})
        for _ in range(2)
    ]

    assert [303, 303] == [answer.status for answer in answers]
    assert 3 == signed_in.execute(ops.DescribeKey(key_id=key_id)).generation


async def test_find_key(signed_in: Browser, key_id: str) -> None:
    """A key is found by name or ID."""
    found = [
        (await signed_in.get(f"/ui/retention/find?key={name}")).location
        for name in ("vat", "VAT", key_id)
    ]

    assert [path_of(key_id)] * 3 == found
    other, wrong = [
        await signed_in.get(f"/ui/retention/find?key={text}")
        for text in ("none", "%3Cb%3E")
    ]
    assert (404, 422) == (other.status, wrong.status)
    assert 'value="none"' in other.text
    assert "There is no such key." in other.words
    assert 'value="&lt;b&gt;"' in wrong.text


async def test_holds_by_page(
    signed_in: Browser, key_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search for holds continues by page and shows its progress."""
    monkeypatch.setattr(retention, "_LOOKED_AT", 1)
    signed_in.execute(ops.HoldKey(key_id=key_id, reason="matter"))
    signed_in.execute(ops.CreateKey(algorithm="Ed25519", name="newer"))

    first = await signed_in.get("/ui/retention/holds")
    _, _, rest = first.text.partition('rel="next" href="')
    second = await signed_in.get(rest.partition('"')[0].replace("&amp;", "&"))

    assert "No legal hold among the 1 key searched" in first.words
    assert "vat" in second.words


async def test_new_ledger_needs_a_lost_one(signed_in: Browser) -> None:
    """Without a lost ledger, the core rejects a new one."""
    page = await signed_in.get(path_of((await _key(signed_in)).key_id))

    refused = await signed_in.submit(page, "/ui/retention/ledger", {"reason": "lost"})
    silent = await signed_in.submit(page, "/ui/retention/ledger", {"reason": ""})

    assert refused.status in {409, 422}
    assert "<html" in refused.text
    assert 422 == silent.status


async def _key(browser: Browser) -> KeyInfo:
    made = browser.execute(ops.CreateKey(algorithm="Ed25519"))
    assert isinstance(made, KeyInfo)
    return made


async def test_operator_is_denied(browser: Browser) -> None:
    """Reading a key does not allow holding it."""
    browser.execute(ops.CreateKey(algorithm="Ed25519", name="signer"))
    key = browser.execute(ops.DescribeKey(key_id="signer"))
    await browser.sign_in([Role.OPERATOR])
    page = await browser.get(path_of(key.key_id))

    shown = await browser.submit(page, f"{path_of(key.key_id)}/hold", {"reason": "x"})

    assert 200 == page.status
    assert 403 == shown.status
    assert "" == browser.execute(ops.DescribeKey(key_id="signer")).hold
