# SPDX-License-Identifier: MIT
"""What other people must agree to: asked for, agreed to, refused."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.hall import Desk, Hall
from tests.browser.scene import HOSTILE


def asked(hall: Hall, name: str) -> str:
    """Ask to destroy a new key that others must agree to; return the path of that."""
    hall.create(name, tags=["dual"])
    answer = hall.ask("adam", "DELETE", f"/keys/{name}", status=202)
    return f"/ui/approvals/{answer['approval_id']}"


def state_of(hall: Hall, path: str) -> str:
    """Return the state of an approval."""
    return str(hall.ask("anton", "GET", path.removeprefix("/ui"))["state"])


def badge(page: Page, text: str) -> None:
    """Expect the state beside the heading."""
    expect(page.get_by_role("heading", level=1)).to_contain_text(text)


def seated(hall: Hall, who: str) -> Desk:
    """Open the browser of somebody who shows a certificate of their own."""
    desk = hall.desk(certificate_of=who)
    desk.sign_in(hall.token(who))
    return desk


def test_second_person(hall: Hall) -> None:
    """
    What one asks for on a page, another agrees to on theirs, and the first has done.
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
    expect(page.get_by_role("button", name="Agree to DestroyKey")).to_have_count(0)
    asker.check()

    theirs = other.open("/ui/approvals")
    other.check()
    row = theirs.get_by_role("row").filter(has_text="agreed")
    row.get_by_role("link", name="DestroyKey").click()
    expect(theirs.get_by_text("adam").first).to_be_visible()
    other.check()
    theirs.get_by_label("Comment").fill("I have seen the ticket")
    theirs.get_by_role("button", name="Agree to DestroyKey").click()
    expect(theirs.get_by_text("I have seen the ticket")).to_be_visible()

    page.goto(f"{asker.origin}{path}")
    badge(page, "granted")
    page.get_by_role("button", name="Do it now: DestroyKey").click()
    page.wait_for_load_state("load")
    assert "consumed" == state_of(hall, path)
    assert "destroyed" == hall.ask("adam", "GET", f"/keys/{key_id}")["state"]
    asker.check()


def test_refused(hall: Hall) -> None:
    """
    A refusal ends it, and its reason is shown as what it is.
    """
    path = asked(hall, "not-agreed")
    desk = seated(hall, "olga")
    page = desk.open(path)
    page.get_by_label("Reason").fill(HOSTILE)
    page.get_by_role("button", name="Refuse DestroyKey").click()
    badge(page, "denied")

    expect(page.get_by_text(HOSTILE)).to_be_visible()
    assert "denied" == state_of(hall, path)
    desk.check()
    desk.open("/ui/approvals?tab=history")
    desk.check()


def test_stale_page(hall: Hall) -> None:
    """
    Whoever agrees on a page that is of yesterday agrees to nothing else by it.
    """
    path, other = asked(hall, "stale-one"), asked(hall, "stale-two")
    desk = seated(hall, "olga")
    page = desk.open(path)
    shown = page.locator("input[name=digest]").first.input_value()
    # As if the page had been of the other request all the time.
    page.evaluate(
        """path => { for (const form of document.querySelectorAll("main form"))
          form.action = form.action.replace(/approvals\\/[^/]+/, path) }""",
        other.removeprefix("/ui/"),
    )
    desk.expect_refusals(400, 403, 409, 412)
    page.get_by_role("button", name="Agree to DestroyKey").click()
    expect(page.get_by_text("Nothing was done")).to_be_visible()

    assert shown
    assert ["pending", "pending"] == [state_of(hall, path), state_of(hall, other)]
    assert [] == hall.ask("anton", "GET", other.removeprefix("/ui")).get(
        "decisions", []
    )
    desk.check()


def test_decided_meanwhile(hall: Hall) -> None:
    """
    Who agrees to what was refused meanwhile is told so.
    """
    path = asked(hall, "meanwhile")
    desk = seated(hall, "olga")
    page = desk.open(path)
    hall.ask("anton", "POST", f"{path.removeprefix('/ui')}/deny", {"reason": "No"})
    desk.expect_refusals(400, 403, 409, 410, 412)
    page.get_by_role("button", name="Agree to DestroyKey").click()

    expect(page.get_by_role("alert").first).to_be_visible()
    assert "denied" == state_of(hall, path)
    desk.check()


def test_with_the_keyboard(hall: Hall) -> None:
    """
    Who has no mouse finds a request and agrees to it.
    """
    path = asked(hall, "by-keyboard")
    desk = seated(hall, "olga")
    page = desk.open(path)
    page.get_by_label("Comment").focus()
    page.keyboard.type("seen")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    expect(page.get_by_text(re.compile("olga.*agreed")).first).to_be_visible()
    assert "granted" == state_of(hall, path)
    desk.check()


def test_double_click(hall: Hall) -> None:
    """
    One person who clicks twice is still one person.
    """
    path = asked(hall, "twice-agreed")
    desk = seated(hall, "olga")
    page = desk.open(path)
    page.get_by_role("button", name="Agree to DestroyKey").dblclick()
    badge(page, "granted")
    decisions = hall.ask("anton", "GET", path.removeprefix("/ui"))["decisions"]

    assert ["olga"] == [said["principal"] for said in decisions]
    desk.check()
