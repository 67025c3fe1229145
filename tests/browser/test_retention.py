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
