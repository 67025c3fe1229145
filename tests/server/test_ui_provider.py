# SPDX-License-Identifier: MIT
"""Sign-in with a real OpenID Connect provider."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import pytest

from hsm_core.operations import ListAuditEvents
from hsm_core.testing import caller
from hsm_server.config.settings import ServerSettings
from hsm_server.http.state import PROVIDER
from tests.server.oidc_issuer import OIDCIssuer, settings_for
from tests.server.ui_support import SESSION, Browser, Shown, open_browser

DEPARTURE: Final = "__Host-ferrohsm-started"


@pytest.fixture
async def browser(tmp_path: Path, issuer: OIDCIssuer) -> AsyncIterator[Browser]:
    """Yield a browser for a console with the provider."""
    oidc = settings_for(
        issuer,
        tmp_path,
        title="Example ID",
        principal_claim="preferred_username",
        roles_claim="groups",
    )
    async with open_browser(ServerSettings(oidc=oidc)) as made:
        yield made


async def depart(browser: Browser, onward: str = "/ui") -> str:
    """Start the sign-in; return the provider's URL."""
    sent = await browser.get(f"/ui/sign-in/oidc?{urlencode({'next': onward})}")
    assert 303 == sent.status, sent.text
    return sent.location


async def come_back(browser: Browser, url: str, **changes: str | None) -> Shown:
    """Send the callback with changed parameters; None omits one."""
    parts = urlsplit(url)
    fields = dict(item.split("=", 1) for item in parts.query.split("&"))
    kept = {k: v for k, v in {**fields, **changes}.items() if v is not None}
    query = "&".join(f"{name}={value}" for name, value in kept.items())
    return await browser.get(f"{parts.path}?{query}")


async def test_signing_in(browser: Browser, issuer: OIDCIssuer) -> None:
    """
    The callback signs in the provider's user and opens the requested page.
    """
    offered = await browser.get("/ui/sign-in")
    url = await depart(browser, "/ui?x=1")
    back = issuer.settle(url, "anton").url
    probed = await browser.send(
        "HEAD", "/ui/sign-in/oidc/answer?" + urlsplit(back).query
    )
    answer = await come_back(browser, back)
    page = await browser.get("/ui")

    assert "Sign in with Example ID" in offered.words
    # It has an effect, which a HEAD must not have.
    assert 405 == probed.status
    assert (303, "/ui?x=1") == (answer.status, answer.location)
    assert SESSION in browser.cookies
    assert DEPARTURE not in browser.cookies
    assert 200 == page.status
    assert "anton" in page.words


async def test_former_session(browser: Browser, issuer: OIDCIssuer) -> None:
    """
    Signing in as another user ends the previous session.
    """
    await browser.sign_in()
    url = issuer.settle(await depart(browser), "olga").url
    former = browser.cookies.pop(SESSION)
    parts = urlsplit(url)
    again = await browser.get(
        f"{parts.path}?{parts.query}", Sec_Fetch_Site="cross-site"
    )
    browser.cookies[SESSION] = former
    (path,) = re.findall(r'<a href="(/ui/sign-in/oidc/[^"]*)">', again.text)
    answer = await browser.get(html.unescape(path), Sec_Fetch_Site="same-origin")
    page = await browser.get("/ui")
    browser.cookies = {SESSION: former}
    left = await browser.get("/ui")

    assert (200, 303) == (again.status, answer.status)
    assert "olga" in page.words
    assert "/ui/sign-in" in left.location


async def test_cookie_of_the_journey(browser: Browser) -> None:
    """
    The state cookie is hidden from scripts and other sites.
    """
    sent = await browser.get("/ui/sign-in/oidc")
    (cookie,) = [
        text for text in sent.headers.getall("Set-Cookie") if DEPARTURE in text
    ]

    for word in ("HttpOnly", "Secure", "SameSite=Lax", "Path=/", "Max-Age=600"):
        assert word in cookie


async def test_record(browser: Browser, issuer: OIDCIssuer) -> None:
    """
    The audit log records the user and the provider.
    """
    url = await depart(browser)
    await come_back(browser, issuer.settle(url, "olga").url)
    page = browser.hsm.act_as(caller()).execute(ListAuditEvents())
    (event,) = [item.event for item in page.items if item.event.kind == "SignIn"]

    assert event.caller is not None
    assert ("olga", ("Operator",)) == (
        event.caller.principal,
        event.caller.roles,
    )


STATES: Final[dict[str, dict[str, str | None]]] = {
    "none": {"state": None},
    "another": {"state": "x" * 43},
    "accents": {"state": "%C3%A9"},
    "no code": {"code": None},
    "invented code": {"code": "invented"},
    "another provider": {"iss": "https%3A%2F%2Fother.example.com"},
    "no provider": {"iss": None},
    "an error, too": {"error": "access_denied"},
}


@pytest.mark.parametrize("changes", STATES.values(), ids=STATES.keys())
async def test_other_returns(
    browser: Browser, issuer: OIDCIssuer, changes: dict[str, str | None]
) -> None:
    """
    A changed callback is rejected.
    """
    url = await depart(browser)
    answer = await come_back(browser, issuer.settle(url, "olga").url, **changes)

    assert 401 == answer.status
    assert SESSION not in browser.cookies
    assert DEPARTURE not in browser.cookies


async def test_return_twice(browser: Browser, issuer: OIDCIssuer) -> None:
    """
    A callback works once.
    """
    url = await depart(browser)
    kept = browser.cookies[DEPARTURE]
    back = issuer.settle(url, "olga").url
    await come_back(browser, back)
    browser.cookies.clear()
    without = await come_back(browser, back)
    browser.cookies[DEPARTURE] = kept
    again = await come_back(browser, back)

    assert [401, 401] == [without.status, again.status]
    assert SESSION not in browser.cookies


async def test_return_of_somebody_else(browser: Browser, issuer: OIDCIssuer) -> None:
    """
    A callback of another browser is rejected.
    """
    stolen = issuer.settle(await depart(browser), "olga").url
    await depart(browser)
    answer = await come_back(browser, stolen)

    assert 401 == answer.status
    assert SESSION not in browser.cookies


@pytest.mark.parametrize(
    "cookie", ["", "x", "e30=", "bnVsbA==", "eyJzdGF0ZSI6MX0=", "A" * 3000]
)
async def test_broken_cookies(
    browser: Browser, issuer: OIDCIssuer, cookie: str
) -> None:
    """
    A malformed state cookie is ignored.
    """
    url = await depart(browser)
    browser.cookies[DEPARTURE] = cookie
    answer = await come_back(browser, issuer.settle(url, "olga").url)

    assert 401 == answer.status


@pytest.mark.parametrize("onward", ["https://evil.example", "//evil.example", "/api"])
async def test_open_redirects(
    browser: Browser, issuer: OIDCIssuer, onward: str
) -> None:
    """
    Sign-in redirects to console pages only.
    """
    url = await depart(browser, onward)
    answer = await come_back(browser, issuer.settle(url, "olga").url)

    assert "/ui" == answer.location


CLAIMS: Final[dict[str, dict[str, Any]]] = {
    "nonce": {"nonce": "x" * 43},
    "audience": {"aud": "other"},
    "issuer": {"iss": "https://other.example.com"},
    "expired": {"iat": 1, "exp": 2},
}


@pytest.mark.parametrize("said", CLAIMS.values(), ids=CLAIMS.keys())
async def test_hostile_tokens(
    browser: Browser, issuer: OIDCIssuer, said: dict[str, Any]
) -> None:
    """
    The vault process verifies the ID token and counts failures.
    """
    url = await depart(browser)
    back = issuer.settle(url, "olga").url
    issuer.also = said
    answer = await come_back(browser, back)

    assert 401 == answer.status
    assert SESSION not in browser.cookies


async def test_nobody_here(browser: Browser, issuer: OIDCIssuer) -> None:
    """
    A user without a mapped role is rejected.
    """
    issuer.people["guest"] = ["staff"]
    url = await depart(browser)
    answer = await come_back(browser, issuer.settle(url, "guest").url)

    assert 401 == answer.status
    assert "does not accept the identity" in answer.words


async def test_token_is_none_for_the_api(browser: Browser, issuer: OIDCIssuer) -> None:
    """
    An ID token is no access token.
    """
    provider = browser.app[PROVIDER]
    assert provider is not None
    url, started = await provider.begin("")
    code = issuer.settle(url, "olga").fields["code"]
    bearer = f"Bearer {await provider.exchange(code, started)}"

    assert 401 == (await browser.get("/ui", Authorization=bearer)).status
    assert 401 == (await browser.get("/api/v1/keys", Authorization=bearer)).status


async def test_provider_is_away(browser: Browser, issuer: OIDCIssuer) -> None:
    """
    If the provider is down, the page shows it, and tokens still work.
    """
    issuer.change_metadata = lambda known: {}
    answer = await browser.get("/ui/sign-in/oidc")

    assert 401 == answer.status
    assert "provider metadata is not available" in answer.words
    assert "Access token" in answer.words
