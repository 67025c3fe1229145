# SPDX-License-Identifier: MIT
"""Audit pages: filters, live view, verification and outages."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import expect

from tests.browser.hall import Hall
from tests.browser.scene import HOSTILE
from tests.e2e.tokens import mint


def test_filters(hall: Hall) -> None:
    """
    Filters work, and each record has a page.
    """
    key_id = hall.create("recorded")["key_id"]
    hall.ask("sam", "POST", f"/keys/{key_id}/rotate", {}, status=403)
    desk = hall.seated("anton")
    page = desk.open("/ui/audit")
    desk.check()
    page.get_by_text("Filter", exact=True).first.click()
    summary = page.locator("details.filters > summary").bounding_box()
    fields = page.locator("details.filters > form").bounding_box()
    assert summary is not None
    assert fields is not None
    assert summary["y"] < fields["y"]
    assert summary["x"] == fields["x"]
    page.get_by_label("Key", exact=True).fill(key_id)
    page.get_by_label("Operation").fill("CreateKey")
    page.get_by_label("Actor").fill("ada")
    page.get_by_role("button", name="Filter", exact=True).click()
    rows = page.locator("#events tr")
    expect(rows).to_have_count(2)  # that it was to be done, and that it was
    expect(rows.first).to_contain_text("CreateKey")
    desk.check()
    rows.first.get_by_role("link").first.click()
    expect(page.get_by_text(re.compile("Previous hash"))).to_be_visible()
    desk.check()
    page.goto(f"{desk.origin}/ui/audit?key_id={key_id}&outcome=failed")
    expect(page.get_by_text("RotateKey").first).to_be_visible()
    desk.check()


def test_live(hall: Hall) -> None:
    """
    The live view shows new records until stopped.
    """
    desk = hall.seated("anton")
    page = desk.open("/ui/audit")
    page.get_by_role("button", name="Follow live").click()
    hall.create("seen-live", description=HOSTILE)
    expect(
        page.locator("#events tr.new").filter(has_text="seen-live").first
    ).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped.")).to_be_visible()

    desk.check()


def test_verify(hall: Hall) -> None:
    """
    Verification shows progress and the newest record.
    """
    desk = hall.seated("anton")
    page = desk.open("/ui/audit/verify")
    desk.check()
    page.get_by_role("button", name="Verify now").click()
    expect(
        page.get_by_role("heading", name=re.compile("Audit log intact"))
    ).to_be_visible()

    desk.check()


def test_expired_session(hall_of: Callable[..., Hall]) -> None:
    """
    A form of an ended session is not executed and leads to sign-in.
    """
    hall = hall_of("--isolation", "inline", "--auth-jwt-leeway-secs", "0")
    key_id = hall.create("over")["key_id"]
    desk = hall.desk()
    token = mint(hall.site.secrets["jwt-secret"], "ada", ["Operator"], ttl_seconds=8)
    # The session rests on this token, and ends with it.
    desk.sign_in(token)
    page = desk.open(f"/ui/keys/{key_id}/rotate")
    while hall.status_with(token) != 401:
        page.wait_for_timeout(100)
    desk.expect_refusals(401)
    page.get_by_role("button", name="Rotate", exact=True).click()
    expect(page.get_by_text("Your session has ended").first).to_be_visible()
    desk.check()

    assert 1 == len(hall.ask("ada", "GET", f"/keys/{key_id}/versions")["items"])
    page.get_by_role("link", name="Sign in").click()
    page.get_by_label("Access token").fill(hall.token("ada"))
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
