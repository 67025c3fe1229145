# SPDX-License-Identifier: MIT
"""Approval requests: create, approve, deny, execute."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.hall import Desk, Hall


def asked(hall: Hall, name: str) -> str:
    """Request the destruction of a new key; return the request's path."""
    hall.create(name, tags=["dual"])
    answer = hall.ask("adam", "DELETE", f"/keys/{name}", status=202)
    return f"/ui/approvals/{answer['approval_id']}"


def state_of(hall: Hall, path: str) -> str:
    """Return the state of an approval."""
    return str(hall.ask("anton", "GET", path.removeprefix("/ui"))["state"])


def badge(page: Page, text: str) -> None:
    """Expect the state in the heading."""
    expect(page.get_by_role("heading", level=1)).to_contain_text(text)


def seated(hall: Hall, who: str) -> Desk:
    """Open a browser with a client certificate of its own."""
    desk = hall.desk(certificate_of=who)
    desk.sign_in(hall.token(who))
    return desk


def test_second_person(hall: Hall) -> None:
    """
    One person requests, another approves, and the requester executes.
    """
    key_id = hall.create("agreed", tags=["dual"])["key_id"]
    asker, other = seated(hall, "adam"), seated(hall, "olga")
    page = asker.open(f"/ui/keys/{key_id}/destroy")
    expect(page.get_by_text("approval").first).to_be_visible()
    page.get_by_label("Type agreed to confirm").fill("agreed")
    asker.expect_refusals(202)
    page.get_by_role("button", name="Destroy", exact=True).click()
    page.wait_for_url("**/ui/approvals/*")
    path = page.url.removeprefix(asker.origin)
    badge(page, "pending")
    expect(page.get_by_role("button", name="Approve destruction")).to_have_count(0)
    asker.check()

    theirs = other.open("/ui/approvals")
    other.check()
    row = theirs.get_by_role("row").filter(has_text="agreed")
    row.get_by_role("link", name="DestroyKey").click()
    expect(theirs.get_by_text("adam").first).to_be_visible()
    other.check()
    theirs.get_by_label("Comment").fill("I have seen the ticket")
    theirs.get_by_role("button", name="Approve destruction").click()
    expect(theirs.get_by_text("I have seen the ticket")).to_be_visible()

    page.goto(f"{asker.origin}{path}")
    badge(page, "granted")
    page.get_by_role("button", name="Execute destruction").click()
    page.wait_for_load_state("load")
    assert "consumed" == state_of(hall, path)
    assert "destroyed" == hall.ask("adam", "GET", f"/keys/{key_id}")["state"]
    asker.check()


def test_with_the_keyboard(hall: Hall) -> None:
    """
    A request can be approved with the keyboard alone.
    """
    path = asked(hall, "by-keyboard")
    desk = seated(hall, "olga")
    page = desk.open(path)
    page.get_by_label("Comment").focus()
    page.keyboard.type("seen")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    expect(page.get_by_text(re.compile("olga.*approved")).first).to_be_visible()
    assert "granted" == state_of(hall, path)
    desk.check()


def test_double_click(hall: Hall) -> None:
    """
    A double click is one decision.
    """
    path = asked(hall, "twice-agreed")
    desk = seated(hall, "olga")
    page = desk.open(path)
    page.get_by_role("button", name="Approve destruction").dblclick()
    badge(page, "granted")
    decisions = hall.ask("anton", "GET", path.removeprefix("/ui"))["decisions"]

    assert ["olga"] == [said["principal"] for said in decisions]
    desk.check()
