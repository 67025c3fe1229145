# SPDX-License-Identifier: MIT
"""Sign-in and sign-out."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.hall import Hall

SESSION = "__Host-ferrohsm"


def overview(page: Page) -> None:
    """Expect the overview."""
    expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()


def test_by_token(hall: Hall) -> None:
    """
    A pasted token signs in and is stored nowhere.
    """
    desk, token = hall.desk(), hall.token("ada")
    desk.open("/ui/sign-in")
    desk.check()
    desk.sign_in(token)
    overview(desk.page)
    desk.check()

    assert token not in desk.page.content()
    assert token not in desk.page.url
    expect(desk.page.get_by_text("ada", exact=True)).to_be_visible()


def test_cookie(hall: Hall) -> None:
    """
    The session's cookie is out of reach of scripts, other hosts and other sites.
    """
    desk = hall.seated("ada")
    (cookie,) = [c for c in desk.context.cookies() if c.get("name") == SESSION]

    assert True is cookie.get("secure")
    assert True is cookie.get("httpOnly")
    assert "Strict" == cookie.get("sameSite")
    assert "localhost" == cookie.get("domain")
    assert "" == desk.page.evaluate("document.cookie")


def test_with_the_keyboard(hall: Hall) -> None:
    """
    Sign-in, skip link and sign-out work with the keyboard alone.
    """
    desk = hall.desk()
    page = desk.open("/ui/sign-in")
    page.get_by_label("Access token").focus()
    page.keyboard.type(hall.token("ada"))
    page.keyboard.press("Enter")
    overview(page)
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.get_by_role("button", name="Sign out").focus()
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", name="Sign in", level=1)).to_be_visible()
    desk.check()


def test_without_scripts(hall: Hall) -> None:
    """
    Sign-in works without scripts.
    """
    desk = hall.desk(scripts=False)
    desk.sign_in(hall.token("ada"))
    overview(desk.page)
    desk.page.get_by_role("button", name="Sign out").click()

    expect(desk.page.get_by_role("heading", name="Sign in", level=1)).to_be_visible()


def test_sign_out(hall: Hall) -> None:
    """
    After sign-out, the previous page and the old cookie show nothing.
    """
    desk = hall.seated("ada")
    (before,) = [c for c in desk.context.cookies() if c.get("name") == SESSION]
    desk.page.get_by_role("button", name="Sign out").click()
    expect(desk.page.get_by_role("heading", name="Sign in", level=1)).to_be_visible()
    desk.page.go_back()
    expect(desk.page.get_by_role("heading", name="Sign in", level=1)).to_be_visible()
    desk.context.add_cookies(
        [{"name": SESSION, "value": before["value"], "url": desk.origin}]
    )
    desk.page.goto(f"{desk.origin}/ui")

    expect(desk.page.get_by_role("heading", name="Sign in", level=1)).to_be_visible()
