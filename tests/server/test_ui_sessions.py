# SPDX-License-Identifier: MIT
"""Sign-in, sign-out and session time-outs."""

import time

from hsm_core.operations import ListAuditEvents
from hsm_server.config.settings import ConsoleSettings, ServerSettings, TokenRules
from hsm_server.identity.clock import FlooredClock
from tests.server.support import EVERYBODY, claims, mint
from tests.server.test_live_view import OverSockets
from tests.server.ui_support import BEFORE, SESSION, Browser, open_browser


async def test_a_token_signs_in(browser: Browser) -> None:
    """Sign-in with a token opens the overview with the user's name."""
    shown = await browser.sign_in()

    assert 303 == shown.status
    assert "/ui" == shown.location
    page = await browser.follow(shown)
    assert 200 == page.status
    assert "alice" in page.words


async def test_the_session_cookie_is_out_of_reach(browser: Browser) -> None:
    """The session cookie has 256 random bits and strict attributes."""
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
    """A page without a session redirects to sign-in and back."""
    shown = await browser.get("/ui")

    assert 303 == shown.status
    assert "/ui/sign-in?next=%2Fui" == shown.location


async def test_a_bad_token_says_nothing(browser: Browser) -> None:
    """An invalid token is rejected without a reason or echo."""
    token = mint(claims(), secret=b"another secret of at least 32 bytes")

    shown = await browser.sign_in(token=token)

    assert 401 == shown.status
    assert token not in shown.text
    assert token not in browser.log.getvalue()
    assert SESSION not in browser.cookies


async def test_signing_out_ends_the_session(signed_in: Browser) -> None:
    """Sign-out deletes the cookie and ends the session."""
    secret = signed_in.cookies[SESSION]

    shown = await signed_in.submit(await signed_in.get("/ui"), "/ui/sign-out")

    assert 303 == shown.status
    assert SESSION not in signed_in.cookies
    signed_in.cookies[SESSION] = secret
    assert 303 == (await signed_in.get("/ui")).status


async def test_a_credential_needs_no_session(browser: Browser) -> None:
    """An ``Authorization`` header opens a page."""
    token = mint(claims(roles=list(EVERYBODY)))

    shown = await browser.get("/ui", Authorization=f"Bearer {token}")

    assert 200 == shown.status
    assert SESSION not in browser.cookies


async def test_a_session_is_nothing_to_the_api(signed_in: Browser) -> None:
    """The session cookie does not authenticate the API."""
    shown = await signed_in.get("/api/v1/status")

    assert 401 == shown.status


async def test_errors_are_pages(signed_in: Browser) -> None:
    """Errors under ``/ui`` are HTML."""
    shown = await signed_in.get("/ui/nothing-here")

    assert 404 == shown.status
    assert shown.headers["Content-Type"].startswith("text/html")
    assert "route_not_found" in shown.words


class Hands:
    """Wall clock and monotonic clock, advanced together."""

    def __init__(self) -> None:
        self.time = time.time()
        self.clock = FlooredClock(lambda: self.time, lambda: self.time)


async def test_an_idle_session_is_over() -> None:
    """A session ends after 15 minutes without use."""
    hands = Hands()
    async with open_browser(clock=hands.clock) as browser:
        await browser.sign_in(exp=int(hands.time) + 7200)
        hands.time += 899
        assert 200 == (await browser.get("/ui")).status
        hands.time += 900

        shown = await browser.get("/ui")

        assert 303 == shown.status
        assert SESSION not in browser.cookies
        assert ["SignIn"] == await visits(browser)


async def test_a_session_ends_with_its_token() -> None:
    """A session ends when its token expires."""
    hands = Hands()
    settings = ServerSettings(tokens=TokenRules(leeway_seconds=0))
    async with open_browser(settings, clock=hands.clock) as browser:
        await browser.sign_in(exp=int(hands.time) + 100)
        hands.time += 101

        assert 303 == (await browser.get("/ui")).status


async def test_coming_and_going_is_recorded(signed_in: Browser) -> None:
    """The audit log records sign-ins and sign-outs with address and credential."""
    await signed_in.submit(await signed_in.get("/ui"), "/ui/sign-out")

    page = signed_in.execute(ListAuditEvents(limit=100))
    found = {entry.event.kind: entry.event.caller for entry in page.items}
    for kind in ("SignIn", "SignOut"):
        assert ("alice", "127.0.0.1") == (
            found[kind].principal,
            found[kind].source_address,
        )


async def test_a_guessed_cookie_is_recorded(browser: Browser) -> None:
    """An unknown session is an authentication failure; an ended one is not."""
    browser.cookies[SESSION] = "A" * 43
    await browser.get("/ui")

    assert ["Authenticate"] == await visits(browser)


async def test_sessions_are_kept_by_another_process() -> None:
    """Sessions work across front end and vault process."""
    between = OverSockets()
    async with open_browser(between=between) as browser:
        shown = await browser.sign_in()
        assert 200 == (await browser.follow(shown)).status
        assert 401 == (await browser.sign_in(token="no.token.atall")).status
        page = await browser.get("/ui")
        assert 303 == (await browser.submit(page, "/ui/sign-out")).status
        browser.cookies[SESSION] = "x" * 5000
        assert 303 == (await browser.get("/ui")).status
        between.close()


async def test_there_may_be_no_console() -> None:
    """With the console off, its pages are 404."""
    settings = ServerSettings(console=ConsoleSettings(is_on=False))
    async with open_browser(settings) as browser:
        for path in ("/", "/ui", "/ui/sign-in"):
            shown = await browser.get(path)
            assert 404 == shown.status
            assert "problem+json" in shown.headers["Content-Type"]


async def visits(browser: Browser) -> list[str]:
    """Return the audit records of sign-ins, sign-outs and failures."""
    page = browser.execute(ListAuditEvents(limit=100))
    kinds = {"SignIn", "SignOut", "Authenticate"}
    return [e.event.kind for e in page.items if e.event.kind in kinds]
