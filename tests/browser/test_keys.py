# SPDX-License-Identifier: MIT
"""Key pages: create, view, test and change."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.hall import Desk, Hall
from tests.browser.scene import HOSTILE


def heading(page: Page, text: str) -> None:
    """Expect a page by its heading."""
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(text))


def done(page: Page, text: str) -> None:
    """Expect a success message."""
    expect(page.get_by_role("status").first).to_contain_text(text)


def create(desk: Desk, name: str, algorithm: str) -> str:
    """Create a key on the pages; return its path."""
    page = desk.open("/ui/keys")
    page.get_by_role("link", name="Create key").click()
    desk.check()
    page.get_by_role("link", name=algorithm, exact=True).first.click()
    page.get_by_label("Name", exact=True).fill(name)
    desk.check()
    page.get_by_role("button", name="Create key").click()
    heading(page, name)
    return page.url.removeprefix(desk.origin)


def act(desk: Desk, path: str, action: str, button: str, **fields: str) -> None:
    """Execute an action on a key."""
    page = desk.open(path)
    page.get_by_role("link", name=action, exact=True).click()
    for label, value in fields.items():
        field = page.get_by_label(label)
        if field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)
    desk.check()
    page.get_by_role("button", name=button, exact=True).click()


def test_life(hall: Hall) -> None:
    """
    A key is created, rotated twice, rolled back, suspended and resumed.
    """
    desk = hall.seated("ada")
    path = create(desk, "life", "EC-P256")
    desk.check()
    for _ in range(2):
        act(desk, path, "Rotate", "Rotate")
        heading(desk.page, "life")
    act(desk, path, "Roll back", "Roll back", **{"Roll back to": "1"})
    heading(desk.page, "life")
    act(desk, path, "Suspend", "Suspend", Reason="Somebody looks into it")
    heading(desk.page, "life")
    expect(desk.page.get_by_text("suspended").first).to_be_visible()
    act(desk, path, "Resume", "Resume")
    heading(desk.page, "life")
    versions = hall.ask("ada", "GET", "/keys/life/versions")["items"]

    assert 4 == len(versions)
    assert "active" == hall.ask("ada", "GET", "/keys/life")["state"]
    desk.check()


def test_end(hall: Hall) -> None:
    """
    A key is revoked, and destroyed after confirmation by name.
    """
    hall.create("end")
    desk = hall.seated("adam")
    path = f"/ui/keys/{hall.ask('adam', 'GET', '/keys/end')['key_id']}"
    act(
        desk,
        path,
        "Revoke",
        "Revoke",
        Reason="Lost",
        **{"Type end to confirm": "end"},
    )
    heading(desk.page, "end")
    expect(desk.page.get_by_text("revoked").first).to_be_visible()
    desk.expect_refusals(400, 422)
    act(desk, path, "Destroy", "Destroy", **{"Type end to confirm": "another"})
    expect(desk.page.get_by_text("No change was made").first).to_be_visible()
    assert "revoked" == hall.ask("adam", "GET", "/keys/end")["state"]
    act(desk, path, "Destroy", "Destroy", **{"Type end to confirm": "end"})
    heading(desk.page, "end")

    assert "destroyed" == hall.ask("adam", "GET", path.removeprefix("/ui"))["state"]
    desk.check()


def test_inventory(hall: Hall) -> None:
    """
    The list filters by name, algorithm, state and tag while typing.
    """
    hall.create("shown-one", tags=["shown"])
    hall.create("shown-two", "AES-256-GCM", tags=["shown"])
    desk = hall.seated("sam")
    page = desk.open("/ui/keys")
    page.get_by_label("Name, owner, tag or ID").press_sequentially("shown-")
    expect(page.get_by_text("2 keys")).to_be_visible()
    page.get_by_label("Algorithm").select_option("AES-256-GCM")
    expect(page.get_by_text("1 key", exact=True)).to_be_visible()

    expect(page.get_by_role("link", name="shown-two")).to_be_visible()
    assert "algorithm=AES-256-GCM" in page.url
    desk.check()


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_signature(hall: Hall, *, scripts: bool) -> None:
    """
    A signature is made and verified, with and without scripts.
    """
    name = f"signature-{scripts}".lower()
    hall.create(name)
    desk = hall.desk(scripts=scripts)
    desk.sign_in(hall.token("ada"))
    page = desk.open(f"/ui/keys/{name}")
    page.get_by_role("link", name="Sign", exact=True).click()
    page.get_by_label("Message", exact=True).fill("Hello")
    page.get_by_role("button", name="Sign", exact=True).click()
    expect(page.get_by_text("succeeded", exact=True)).to_be_visible()
    signature = page.locator("[id$=-base64]").first.inner_text()
    page.get_by_role("link", name="Verify", exact=True).click()
    page.get_by_label("Message", exact=True).fill("Hello")
    page.get_by_label("Signature", exact=True).fill(signature)
    page.get_by_role("button", name="Verify", exact=True).click()

    expect(page.get_by_text("succeeded", exact=True)).to_be_visible()
    desk.expect_refusals(422)
    page.get_by_label("Message", exact=True).fill("Hullo")
    page.get_by_label("Signature", exact=True).fill(signature)
    page.get_by_role("button", name="Verify", exact=True).click()
    expect(page.get_by_text("failed", exact=True)).to_be_visible()
    if scripts:
        desk.check()


def test_double_click(hall: Hall) -> None:
    """
    A double click executes once.
    """
    key_id = hall.create("double")["key_id"]
    desk = hall.seated("ada")
    page = desk.open(f"/ui/keys/{key_id}/rotate")
    page.get_by_role("button", name="Rotate", exact=True).dblclick()
    heading(page, "double")

    assert 2 == len(hall.ask("ada", "GET", f"/keys/{key_id}/versions")["items"])


def test_with_the_keyboard(hall: Hall) -> None:
    """
    A key is created and rotated with the keyboard alone.
    """
    desk = hall.seated("ada")
    page = desk.open("/ui/keys/new?algorithm=Ed25519")
    page.get_by_label("Name", exact=True).focus()
    page.keyboard.type("typed")
    page.keyboard.press("Enter")
    heading(page, "typed")
    page.get_by_role("link", name="Rotate", exact=True).focus()
    page.keyboard.press("Enter")
    heading(page, "Rotate: typed")
    page.get_by_role("button", name="Rotate", exact=True).focus()
    page.keyboard.press("Space")
    heading(page, "^typed")

    assert 2 == len(hall.ask("ada", "GET", "/keys/typed/versions")["items"])


def test_hostile_text(hall: Hall) -> None:
    """
    Hostile text stays text on every page.
    """
    key_id = hall.create("hostile", description=HOSTILE)["key_id"]
    hall.ask("ada", "POST", f"/keys/{key_id}/suspend", {"reason": HOSTILE})
    actor = "<b>x</b><script>alert(3)</script>"
    desk = hall.desk()
    desk.sign_in(hall.site.token(actor, "Administrator", "Operator", "Auditor"))
    for path in (f"/ui/keys/{key_id}", f"/ui/keys/{key_id}/edit", "/ui/keys", "/ui"):
        page = desk.open(path)
        expect(page.get_by_text(actor)).to_be_visible()
        desk.check()
    page = desk.open(f"/ui/keys/{key_id}")
    expect(page.get_by_text(HOSTILE).first).to_be_visible()

    assert 0 == page.locator("main img, main script, main b").count()
