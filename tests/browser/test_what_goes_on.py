# SPDX-License-Identifier: MIT
"""Live pages: outages, focus and history."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Route, expect

from tests.browser.hall import Desk, Hall

_OLD = "The figures below are out of date"


@pytest.fixture
def desk(hall: Hall) -> Desk:
    """Yield Anton's browser."""
    return hall.seated("anton")


def test_a_session_that_ended_elsewhere(desk: Desk) -> None:
    """
    An overview without updates is marked as out of date.
    """
    page = desk.open("/ui")
    expect(page.get_by_text(_OLD)).to_be_hidden()
    other = desk.context.new_page()
    other.goto(f"{desk.origin}/ui/keys")
    other.get_by_role("button", name="Sign out").click()
    expect(other.get_by_role("heading", name="Sign in", level=1)).to_be_visible()
    other.close()

    expect(page.get_by_role("alert").filter(has_text=_OLD)).to_be_visible()
    desk.check()
    page.get_by_role("link", name="Reload the page").click()
    expect(page.get_by_role("heading", name="Sign in", level=1)).to_be_visible()


def test_a_server_that_says_nothing(desk: Desk) -> None:
    """
    Late figures are marked as out of date until the next update.
    """
    kept: list[Route] = []

    def keep(route: Route) -> None:
        kept.append(route)

    page = desk.page
    page.route("**/ui/overview/live", keep)
    page.clock.install()
    desk.open("/ui")
    page.clock.fast_forward(11_000)
    expect(page.get_by_text(_OLD)).to_be_visible()

    assert 1 == len(kept)
    kept[0].continue_()
    expect(page.get_by_text(_OLD)).to_be_hidden()


def test_the_focus_stays_on_what_leads_on(desk: Desk) -> None:
    """
    Verification keeps the keyboard focus.
    """
    page = desk.open("/ui/audit/verify")
    page.get_by_role("button", name="Verify now").focus()
    page.keyboard.press("Enter")
    expect(
        page.get_by_role("heading", name=re.compile("Audit log intact"))
    ).to_be_visible()

    expect(page.get_by_role("link", name="Verify again")).to_be_focused()


def test_back_from_a_search(desk: Desk) -> None:
    """
    The search is kept on going back and is one history entry.
    """
    page = desk.open("/ui/approvals")
    page.get_by_role("link", name="Keys", exact=True).click()
    page.get_by_label("Name, owner, tag or ID").press_sequentially("no-such", delay=350)
    expect(page).to_have_url(re.compile("search=no-such"))
    page.get_by_role("link", name="Audit", exact=True).click()
    expect(page.get_by_role("heading", name="Audit log")).to_be_visible()
    page.go_back()
    expect(page.get_by_label("Name, owner, tag or ID")).to_have_value("no-such")
    page.go_back()

    expect(page.get_by_role("heading", name="Approvals", exact=True)).to_be_visible()
