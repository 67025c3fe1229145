# SPDX-License-Identifier: MIT
"""Retention pages: legal holds and extensions."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.hall import Hall
from tests.browser.scene import HOSTILE


def test_hold_and_release(hall: Hall) -> None:
    """
    A legal hold is placed with hostile text as reason, and released.
    """
    hall.create("held-one")
    desk = hall.seated("anton")
    page = desk.open("/ui/retention")
    desk.check()
    page.get_by_label("Key", exact=True).fill("held-one")
    page.get_by_role("button", name="View key", exact=True).click()
    desk.check()
    page.get_by_label("Reason").fill(HOSTILE)
    page.get_by_role("button", name="Place hold").click()
    expect(page.get_by_text("Placed the legal hold.")).to_be_visible()
    expect(page.get_by_text(HOSTILE).first).to_be_visible()
    path = page.url.removeprefix(desk.origin)
    desk.check()
    desk.open("/ui/retention/holds")
    expect(page.get_by_role("link", name="held-one")).to_be_visible()
    desk.check()

    other = hall.seated("adam")
    other.open(path)
    other.page.get_by_label("Reason").fill("It is over")
    other.page.get_by_role("button", name="Release hold").click()
    expect(other.page.get_by_text("Released the legal hold.")).to_be_visible()
    expect(other.page.get_by_text("legal hold", exact=True)).to_have_count(0)
    other.check()
    assert not hall.ask("ada", "GET", "/keys/held-one").get("hold")


def test_keep_for_longer(hall: Hall) -> None:
    """
    The retention of a version is extended.
    """
    hall.create("longer")
    hall.ask("ada", "POST", "/keys/longer/rotate", {})
    key_id = hall.ask("ada", "GET", "/keys/longer")["key_id"]
    desk = hall.seated("anton")
    page = desk.open(f"/ui/retention/keys/{key_id}")
    page.get_by_label("Version", exact=True).select_option("1")
    page.get_by_label("Retain until end of day (UTC)").fill("2036-01-01")
    page.get_by_role("button", name="Extend retention").click()

    expect(page.get_by_text("2036-01-0").first).to_be_visible()
    desk.check()


def test_stale_page(hall: Hall) -> None:
    """
    A stale page is rejected.
    """
    hall.create("stale-hold")
    key_id = hall.ask("ada", "GET", "/keys/stale-hold")["key_id"]
    desk = hall.seated("anton")
    page = desk.open(f"/ui/retention/keys/{key_id}")
    hall.ask("ada", "POST", f"/keys/{key_id}/rotate", {})
    page.get_by_label("Reason").fill("late")
    desk.expect_refusals(409, 412)
    page.get_by_role("button", name="Place hold").click()

    expect(page.get_by_text("No change was made").first).to_be_visible()
    assert not hall.ask("ada", "GET", f"/keys/{key_id}").get("hold")
    desk.check()
