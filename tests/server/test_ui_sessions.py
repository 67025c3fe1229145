# SPDX-License-Identifier: MIT
"""Console sessions: their store, sign-in, certificates, and other sites."""

import re
import time
from collections.abc import Iterator

import msgspec
import pytest

from hsm_core.errors import AuthenticationError
from hsm_core.factory import open_async
from hsm_core.model import Role
from hsm_core.operations import ListAuditEvents
from hsm_core.policies import parse_policy
from hsm_core.settings import Settings
from hsm_core.testing import memory_hsm
from hsm_server.config.settings import (
    ConsoleSettings,
    RateLimits,
    ServerSettings,
    TokenRules,
)
from hsm_server.identity.clock import FlooredClock
from hsm_server.identity.sessions import MemoryTable, SessionEndedError, Sessions
from hsm_server.identity.token_keys import TokenTrust
from hsm_server.ui.console import PAGES
from hsm_server.ui.rendering import visible
from hsm_server.ui.security import pack_flash, safe_path
from hsm_server.ui.sign_in import OPEN_PAGES
from hsm_server.vault.access import How, Visitor
from hsm_server.vault.gatekeeper import Gatekeeper
from hsm_server.vault.local_vault import LocalVault
from tests.pki import self_signed_root
from tests.server.ipc_support import OverSockets
from tests.server.support import EVERYBODY, SECRET, Between, SetClock, claims, mint
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
    assert "Check the token or certificate." in shown.words
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


ROOT = self_signed_root("Root")
ANN, EVE = ROOT.issue("ann"), ROOT.issue("eve")
POLICY = parse_policy(
    "version: 1\nextends: default\nidentities:\n"
    "  - {principal: ann, roles: [Operator], certificate_subjects: ['CN=ann']}"
)
OTHER_SECRET = b"tests only: another one of 32 bytes"


@pytest.fixture
def failures() -> list[None]:
    """Return the failure counter."""
    return []


@pytest.fixture
def keeper(failures: list[None]) -> Iterator[Gatekeeper]:
    """Return the authentication of Ann by certificate alone."""
    settings = Settings(certificate_identities=True)
    with memory_hsm(policy=POLICY, settings=settings) as hsm:
        yield Gatekeeper(
            open_async(hsm),
            TokenTrust.of_secret(SECRET, TokenRules()),
            lambda: failures.append(None),
            FlooredClock(),
        )


async def begin(keeper: Gatekeeper, visitor: Visitor) -> str:
    """Sign in and return the session's secret."""
    signed_in = await keeper.sign_in(visitor, await keeper.admit(visitor))
    return signed_in.session


async def test_a_certificate_begins_a_session(keeper: Gatekeeper) -> None:
    """A certificate session lasts while the certificate is sent."""
    secret = await begin(keeper, Visitor(certificate=ANN.der))

    shown = Visitor(session=secret, certificate=ANN.der)
    who = keeper.who(shown, keeper.authenticate(shown))

    assert ("ann", (Role.OPERATOR,)) == (who.principal, who.roles)
    assert (How.CERTIFICATE, "CN=ann") == (who.how, who.certificate_subject)


@pytest.mark.parametrize("shown", [b"", EVE.der], ids=["none", "another"])
@pytest.mark.parametrize("credential", ["", "token"])
async def test_a_stolen_cookie_is_worth_nothing(
    keeper: Gatekeeper, failures: list[None], shown: bytes, credential: str
) -> None:
    """A session is bound to the certificate of its sign-in."""
    token = mint() if credential else ""
    secret = await begin(keeper, Visitor(credential=token, certificate=ANN.der))

    with pytest.raises(AuthenticationError):
        await keeper.admit(Visitor(session=secret, certificate=shown))

    assert [None] == failures
    whole = Visitor(session=secret, certificate=ANN.der)
    assert keeper.authenticate(whole).caller.principal in {"ann", "alice"}


async def test_a_key_that_is_gone_ends_its_sessions(
    keeper: Gatekeeper, failures: list[None]
) -> None:
    """A session's credential is verified again with the current keys."""
    secret = await begin(keeper, Visitor(credential=mint()))
    keeper.use(TokenTrust.of_secret(OTHER_SECRET, TokenRules()))

    with pytest.raises(AuthenticationError):
        await keeper.admit(Visitor(session=secret))

    assert [] == failures
    keeper.use(TokenTrust.of_secret(SECRET, TokenRules()))
    with pytest.raises(AuthenticationError):
        await keeper.admit(Visitor(session=secret))


async def test_a_session_and_a_credential_are_no_visitor(keeper: Gatekeeper) -> None:
    """A visitor can't choose between two identities."""
    secret = await begin(keeper, Visitor(credential=mint()))

    with pytest.raises(AuthenticationError):
        await keeper.admit(Visitor(session=secret, credential=mint()))


async def test_a_session_begins_no_other(keeper: Gatekeeper) -> None:
    """A new sign-in does not extend the absolute time-out."""
    secret = await begin(keeper, Visitor(credential=mint()))

    with pytest.raises(AuthenticationError):
        await begin(keeper, Visitor(session=secret))


async def test_an_unused_look_is_no_use(keeper: Gatekeeper) -> None:
    """Background requests are authenticated."""
    secret = await begin(keeper, Visitor(credential=mint()))

    quiet = msgspec.structs.replace(Visitor(session=secret), is_background=True)

    assert "alice" == keeper.authenticate(quiet).caller.principal


async def test_the_button_needs_a_certificate() -> None:
    """Without a certificate, certificate sign-in is not offered and fails."""
    async with open_browser() as browser:
        page = await browser.get("/ui/sign-in")
        shown = await browser.submit(page, "/ui/sign-in", {"how": "certificate"})

    assert "this client certificate" not in page.words
    assert "Check the token or certificate." in shown.words
    assert 401 == shown.status


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, 7 €", "plain, 7 €"),
        ("Жанна 佐藤", "Жанна 佐藤"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("a\u200bb", "a⟨U+200B⟩b"),
        ("a\nb\tc", "a⟨U+000A⟩b⟨U+0009⟩c"),
        ("a\u00a0b\u2003c", "a⟨U+00A0⟩b⟨U+2003⟩c"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("<b>", "<b>"),
    ],
    ids=[
        "plain",
        "letters",
        "reordering",
        "no-width",
        "breaks",
        "spaces",
        "tags",
        "markup-is-for-templates",
    ],
)
def test_what_cannot_be_seen_is_told(text: str, shown: str) -> None:
    """Letters stay; invisible and reordering characters become code points."""
    assert shown == visible(text)


@pytest.fixture
def hands() -> SetClock:
    """Give a clock."""
    return SetClock(1_000_000.0)


@pytest.fixture
def sessions(hands: SetClock) -> Sessions:
    """Give a memory of four sessions, two of each principal."""
    settings = ConsoleSettings(idle_seconds=60, absolute_seconds=600)
    return Sessions(settings, hands.now, most=4, most_of_one=2)


def test_a_page_that_asks_by_itself_is_no_use(
    sessions: Sessions, hands: SetClock
) -> None:
    """What goes on without anybody doing something keeps no session alive."""
    secret = sessions.begin("alice", "token", "")
    hands.seconds += 40
    sessions.find(secret, "", is_used=False)
    hands.seconds += 20

    with pytest.raises(SessionEndedError):
        sessions.find(secret, "")


def test_a_busy_session_ends_too(sessions: Sessions, hands: SetClock) -> None:
    """However much it is used, it does not outlast its absolute time."""
    secret = sessions.begin("alice", "token", "")
    for _ in range(11):
        hands.seconds += 50
        sessions.find(secret, "")

    hands.seconds += 50

    with pytest.raises(SessionEndedError):
        sessions.find(secret, "")


def test_one_principal_has_few(sessions: Sessions) -> None:
    """Another session of the same person ends the one used least recently."""
    first, second = (sessions.begin("alice", "token", "") for _ in range(2))
    sessions.find(first, "")

    sessions.begin("Alice", "token", "")

    assert "alice" == sessions.find(first, "").principal
    with pytest.raises(AuthenticationError):
        sessions.find(second, "")


def test_there_are_not_too_many(sessions: Sessions) -> None:
    """Nobody can fill the memory: the session used least recently goes."""
    secrets = [sessions.begin(f"person {n}", "token", "") for n in range(5)]

    assert isinstance(sessions.table, MemoryTable)
    assert 4 == len(sessions.table)
    with pytest.raises(AuthenticationError):
        sessions.find(secrets[0], "")


def test_what_ended_is_swept_after_a_clock_reset(
    sessions: Sessions, hands: SetClock
) -> None:
    """A clock that was ahead and is set back doesn't stop the sweeps."""
    hands.seconds += 86_400
    sessions.begin("alice", "token", "")
    hands.seconds -= 86_400
    sessions.end_all()
    sessions.begin("alice", "token", "")
    hands.seconds += 61

    sessions.begin("bob", "token", "")

    assert isinstance(sessions.table, MemoryTable)
    assert 1 == len(sessions.table)


def test_what_ended_is_swept(sessions: Sessions, hands: SetClock) -> None:
    """A token does not stay in memory because nobody comes back to its session."""
    sessions.begin("alice", "token", "")
    hands.seconds += 61

    sessions.begin("bob", "token", "")

    assert isinstance(sessions.table, MemoryTable)
    assert 1 == len(sessions.table)
