# SPDX-License-Identifier: MIT
"""Signing in to the console and out of it, and what ends a session."""

from tests.server.support import EVERYBODY, claims, mint
from tests.server.ui_support import BEFORE, SESSION, Browser


async def test_a_token_signs_in(browser: Browser) -> None:
    """A pasted token leads to the overview, which says who looks at it."""
    shown = await browser.sign_in()

    assert 303 == shown.status
    assert "/ui" == shown.location
    page = await browser.follow(shown)
    assert 200 == page.status
    assert "alice" in page.words


async def test_the_session_cookie_is_out_of_reach(browser: Browser) -> None:
    """The cookie is 256 random bits that scripts, other hosts and HTTP don't see."""
    shown = await browser.sign_in()

    (cookie,) = [
        value
        for value in shown.headers.getall("Set-Cookie")
        if value.startswith(f"{SESSION}=")
    ]
    assert {"HttpOnly", "Path=/", "SameSite=Strict", "Secure"} == set(
        cookie.split("; ")[1:]
    )
    assert 43 == len(browser.cookies[SESSION])
    assert BEFORE not in browser.cookies


async def test_nobody_is_sent_to_the_sign_in(browser: Browser) -> None:
    """Without a session a page leads to the sign-in, and back afterwards."""
    shown = await browser.get("/ui")

    assert 303 == shown.status
    assert "/ui/sign-in?next=%2Fui" == shown.location


async def test_a_bad_token_says_nothing(browser: Browser) -> None:
    """A token that is not good is refused without a reason, and is not shown again."""
    token = mint(claims(), secret=b"another secret of at least 32 bytes")

    shown = await browser.sign_in(token=token)

    assert 401 == shown.status
    assert token not in shown.text
    assert token not in browser.log.getvalue()
    assert SESSION not in browser.cookies


async def test_signing_out_ends_the_session(signed_in: Browser) -> None:
    """After signing out the cookie is gone, and its secret is worth nothing."""
    secret = signed_in.cookies[SESSION]

    shown = await signed_in.submit(await signed_in.get("/ui"), "/ui/sign-out")

    assert 303 == shown.status
    assert SESSION not in signed_in.cookies
    signed_in.cookies[SESSION] = secret
    assert 303 == (await signed_in.get("/ui")).status


async def test_a_credential_needs_no_session(browser: Browser) -> None:
    """An ``Authorization`` header opens a page, as it does in the API."""
    token = mint(claims(roles=list(EVERYBODY)))

    shown = await browser.get("/ui", Authorization=f"Bearer {token}")

    assert 200 == shown.status
    assert SESSION not in browser.cookies


async def test_a_session_is_nothing_to_the_api(signed_in: Browser) -> None:
    """The cookie opens pages for people, and nothing of the API."""
    shown = await signed_in.get("/api/v1/status")

    assert 401 == shown.status


async def test_errors_are_pages(signed_in: Browser) -> None:
    """What goes wrong under ``/ui`` is told in HTML."""
    shown = await signed_in.get("/ui/nothing-here")

    assert 404 == shown.status
    assert shown.headers["Content-Type"].startswith("text/html")
    assert "route_not_found" in shown.words
