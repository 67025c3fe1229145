# SPDX-License-Identifier: MIT
"""Protection against other sites, other browsers and hostile text."""

import re

import pytest

from hsm_server.config.settings import RateLimits, ServerSettings
from hsm_server.ui.console import PAGES
from hsm_server.ui.security import pack_flash, safe_path
from hsm_server.ui.sign_in import OPEN_PAGES
from hsm_server.vault.local_vault import LocalVault
from tests.server.support import Between, claims, mint
from tests.server.test_live_view import OverSockets
from tests.server.ui_support import BEFORE, SESSION, Browser, open_browser

FLASH = "__Host-ferrohsm-flash"
FORMS = [
    *(page.path for page in OPEN_PAGES if page.method == "POST"),
    *(page.path for page in PAGES if page.method == "POST"),
]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
    ids=["cross-site", "same-site", "origin", "null"],
)
async def test_cross_site_form(signed_in: Browser, headers: dict[str, str]) -> None:
    """A cross-site form is rejected, even with cookie and token."""
    page = await signed_in.get("/ui")

    named = {name.replace("-", "_"): value for name, value in headers.items()}
    shown = await signed_in.submit(page, "/ui/sign-out", None, **named)

    assert 403 == shown.status
    assert "cross_site" in shown.words
    assert 200 == (await signed_in.get("/ui")).status


async def test_same_origin_headers(signed_in: Browser) -> None:
    """Same-origin headers are accepted."""
    page = await signed_in.get("/ui")

    shown = await signed_in.submit(
        page, "/ui/sign-out", Origin=signed_in.base, Sec_Fetch_Site="same-origin"
    )

    assert 303 == shown.status


@pytest.mark.parametrize("token", ["", "x", "é", "A" * 43])
async def test_invalid_form_token(signed_in: Browser, token: str) -> None:
    """A form without a valid token is rejected."""
    shown = await signed_in.post("/ui/sign-out", {"form_token": token})

    assert 403 == shown.status
    assert "stale_form" in shown.words
    assert 200 == (await signed_in.get("/ui")).status


@pytest.mark.parametrize("path", FORMS)
async def test_every_form_needs_its_token(signed_in: Browser, path: str) -> None:
    """Every form page rejects a form without a valid token."""
    made = re.sub(r"\{(action|trial):([a-z-]+)[^}]*\}", r"\2", path)
    made = re.sub(
        r"\{\w+(:(\{[^}]*\}|[^{}])*)?\}", "3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11", made
    )

    shown = await signed_in.post(f"/ui{made}", {"form_token": "A" * 43})

    assert 403 == shown.status, (made, shown.words)
    assert "stale_form" in shown.words


async def test_form_token_of_another_session(signed_in: Browser) -> None:
    """A form token is not valid in another session."""
    page = await signed_in.get("/ui")
    await signed_in.sign_in()

    shown = await signed_in.submit(page, "/ui/sign-out")

    assert 403 == shown.status


async def test_sign_in_form_is_bound_to_the_browser(browser: Browser) -> None:
    """A sign-in form is bound to its browser's cookie."""
    page = await browser.get("/ui/sign-in")
    browser.cookies.clear()

    shown = await browser.submit(page, "/ui/sign-in", {"token": mint(claims())})

    assert 403 == shown.status
    assert SESSION not in browser.cookies


async def test_session_fixation(browser: Browser) -> None:
    """Sign-in replaces an existing session and ends it."""
    await browser.sign_in(sub="mallory")
    prepared = browser.cookies[SESSION]

    await browser.sign_in(sub="alice")

    assert prepared != browser.cookies[SESSION]
    assert "alice" in (await browser.get("/ui")).words
    browser.cookies[SESSION] = prepared
    assert 303 == (await browser.get("/ui")).status


async def test_cookie_before_sign_in_is_no_session(browser: Browser) -> None:
    """The cookie before sign-in opens no page."""
    await browser.get("/ui/sign-in")
    browser.cookies[SESSION] = browser.cookies[BEFORE]

    assert 303 == (await browser.get("/ui")).status
    assert SESSION not in browser.cookies


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "/ui//evil.example",
        "/ui/../api/v1/keys",
        "/ui/%2e%2e/api",
        "/ui/%2Fevil.example",
        "/ui/a%0ab",
        "/uix",
        "/ui\r\nSet-Cookie: a=b",
        "/ui?next=\n",
        "javascript:alert(1)",
        "/ui/" + "a" * 1100,
        "",
    ],
)
def test_open_redirects(path: str) -> None:
    """Sign-in redirects to console pages only."""
    assert "/ui" == safe_path(path)


@pytest.mark.parametrize("path", ["/ui", "/ui?search=a%20b&state=active"])
async def test_redirect_after_sign_in(browser: Browser, path: str) -> None:
    """Sign-in redirects to the requested page."""
    page = await browser.follow(await browser.get(path))

    shown = await browser.submit(page, "/ui/sign-in", {"token": mint(claims())})

    assert path == shown.location


async def test_cross_site_link_is_reloaded(signed_in: Browser) -> None:
    """A cross-site link reloads the page to get strict cookies."""
    held = dict(signed_in.cookies)
    signed_in.cookies.clear()

    shown = await signed_in.get("/ui", Sec_Fetch_Site="cross-site")

    assert 200 == shown.status
    assert '<meta http-equiv="refresh" content="0; url=/ui">' in shown.text
    signed_in.cookies.update(held)
    assert 200 == (await signed_in.get("/ui", Sec_Fetch_Site="same-origin")).status


async def test_hostile_text_stays_text(browser: Browser) -> None:
    """A name with markup is escaped."""
    name = '"><script>alert(1)</script>'

    shown = await browser.follow(await browser.sign_in(sub=name))

    assert "<script>alert" not in shown.text
    assert name in shown.words or name.split(">")[0] in shown.words


async def test_page_headers(signed_in: Browser) -> None:
    """Pages are not cached, not framed, and run only our scripts."""
    shown = await signed_in.get("/ui")

    policy = shown.headers["Content-Security-Policy"]
    assert "no-store" == shown.headers["Cache-Control"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "DENY" == shown.headers["X-Frame-Options"]
    assert "same-origin" == shown.headers["Referrer-Policy"]
    assert "style=" not in shown.text


async def test_static_files(signed_in: Browser) -> None:
    """Static files are cached permanently; other names are not found."""
    page = (await signed_in.get("/ui")).text
    (path,) = [part for part in page.split('"') if part.endswith(".css")]

    shown = await signed_in.get(path)

    assert 200 == shown.status
    assert "immutable" in shown.headers["Cache-Control"]
    assert 404 == (await signed_in.get("/ui/static/console.css")).status


@pytest.mark.parametrize("flash", ["aGVsbG8=.AAAA", ".", "x", "é.é", "aGVsbG8="])
async def test_forged_flash(signed_in: Browser, flash: str) -> None:
    """A forged flash cookie is not shown."""
    signed_in.cookies[FLASH] = flash

    shown = await signed_in.get("/ui")

    assert 'class="flash"' not in shown.text
    assert FLASH not in signed_in.cookies


async def test_flash_without_session(browser: Browser) -> None:
    """A flash cookie without a session is not shown."""
    browser.cookies[FLASH] = pack_flash("", "Call this number")
    bearer = f"Bearer {mint(claims(roles=['Operator']))}"

    for shown in (
        await browser.get("/ui", Authorization=bearer),
        await browser.get("/ui/keys", HX_Request="true"),
    ):
        assert "Call this number" not in shown.text


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("multipart/form-data; boundary=x", b"--x", 400),
        ("application/json", b"{}", 415),
        ("application/x-www-form-urlencoded", b"a=%FF", 400),
        ("application/x-www-form-urlencoded", b"\xff", 400),
        ("application/x-www-form-urlencoded", b"a=1&form_token=2&form_token=3", 422),
        ("application/x-www-form-urlencoded", b"a=" + b"x" * 300_000, 413),
        ("application/x-www-form-urlencoded", b"&".join([b"a=1"] * 300), 400),
    ],
    ids=["multipart", "json", "utf-8", "bytes", "twice", "long", "many"],
)
async def test_malformed_forms(
    signed_in: Browser, kind: str, body: bytes, status: int
) -> None:
    """Malformed requests get an HTML error page."""
    shown = await signed_in.send(
        "POST", "/ui/sign-out", headers={"Content-Type": kind}, data=body
    )

    assert status == shown.status
    assert shown.headers["Content-Type"].startswith("text/html")
    assert 200 == (await signed_in.get("/ui")).status


async def test_root_redirects_to_the_console(browser: Browser) -> None:
    """The root path redirects to the console."""
    for path in ("/", "/ui/"):
        shown = await browser.get(path)
        assert (303, "/ui") == (shown.status, shown.location)


async def test_form_of_an_ended_session(signed_in: Browser) -> None:
    """A form of an ended session is not executed."""
    page = await signed_in.get("/ui")
    signed_in.cookies[SESSION] = "A" * 43

    shown = await signed_in.submit(page, "/ui/sign-out")

    assert 401 == shown.status
    assert "was not executed" in shown.words


async def test_fragment_of_an_ended_session(browser: Browser) -> None:
    """A fragment request of an ended session redirects the page to sign-in."""
    shown = await browser.get("/ui", HX_Request="true")

    assert 401 == shown.status
    assert "/ui/sign-in?next=%2Fui" == shown.headers["HX-Redirect"]


async def test_invalid_authorization_header(signed_in: Browser) -> None:
    """An invalid Authorization header is rejected despite a cookie."""
    shown = await signed_in.get("/ui", Authorization="Basic YTpi")

    assert 401 == shown.status
    assert "Bearer" == shown.headers["WWW-Authenticate"]


async def test_rate_limit_page() -> None:
    """Rate limits get an HTML page with Retry-After."""
    rates = RateLimits(address_per_second=0.01, address_burst=2)
    settings = ServerSettings(rates=rates)
    async with open_browser(settings) as browser:
        for _ in range(2):
            assert 200 == (await browser.get("/ui/sign-in")).status

        shown = await browser.get("/ui/sign-in")

    assert 429 == shown.status
    assert shown.headers["Content-Type"].startswith("text/html")
    assert int(shown.headers["Retry-After"]) > 0


async def test_ended_sessions_are_no_failures() -> None:
    """Requests of ended sessions are no authentication failures."""
    settings = ServerSettings(rates=RateLimits(free_failures=1))
    async with open_browser(settings) as browser:
        for _ in range(5):
            browser.cookies[SESSION] = "A" * 43
            assert 303 == (await browser.get("/ui")).status

        assert 303 == (await browser.sign_in()).status


@pytest.mark.parametrize("between", [LocalVault, OverSockets()], ids=["local", "ipc"])
async def test_sign_in_is_rate_limited(between: Between) -> None:
    """Sign-in has the same rate limit as other requests."""
    settings = ServerSettings(rates=RateLimits(per_second=0.01, burst=2))
    async with open_browser(settings, between=between) as browser:
        statuses = [(await browser.sign_in()).status for _ in range(4)]
        if isinstance(between, OverSockets):
            between.close()

    assert 303 == statuses[0]
    assert 429 == statuses[-1]
