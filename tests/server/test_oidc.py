# SPDX-License-Identifier: MIT
"""OpenID Connect: configuration, client, and sign-in with a provider."""

from __future__ import annotations

import html
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import flask
import msgspec
import pytest

from hsm_core.errors import ConfigurationError, UnsafeFileModeError
from hsm_core.model import Role
from hsm_core.operations import ListAuditEvents
from hsm_core.testing import caller
from hsm_server.config.settings import OIDCSettings, ServerSettings
from hsm_server.http.state import PROVIDER
from hsm_server.identity.oidc_client import Provider, ProviderError, SignInState
from hsm_server.identity.oidc_config import load_oidc_config
from tests.server.oidc_issuer import CLIENT_SECRET, OIDCIssuer, settings_for
from tests.server.ui_support import SESSION, Browser, Shown, open_browser

GOOD: Final[dict[str, Any]] = {
    "issuer": "https://id.example.com/realms/hsm",
    "client_id": "ferrohsm",
    "redirect_uri": "https://hsm.example.com/ui/sign-in/oidc/answer",
    "jwks_file": "keys.json",
    "roles": {"hsm-operators": "operator", "hsm-auditors": "Auditor"},
}


def write(folder: Path, **changes: Any) -> Path:
    """Write a file, by default a good one; None leaves a field out."""
    path = folder / "oidc.yaml"
    path.touch(mode=0o600)
    fields = {k: v for k, v in {**GOOD, **changes}.items() if v is not None}
    path.write_text(json.dumps(fields))
    return path


def test_good_file(tmp_path: Path) -> None:
    """
    Paths are relative to the file, and roles are accepted in any case.
    """
    settings = load_oidc_config(write(tmp_path, client_secret_file="secret"))

    assert tmp_path / "secret" == settings.client_secret_file
    assert tmp_path / "keys.json" == settings.jwks_file
    assert {
        "hsm-operators": Role.OPERATOR,
        "hsm-auditors": Role.AUDITOR,
    } == settings.roles


BAD: Final[dict[str, dict[str, Any]]] = {
    "no issuer": {"issuer": None},
    "issuer over http": {"issuer": "http://id.example.com"},
    "issuer with query": {"issuer": "https://id.example.com/?x=1"},
    "issuer with password": {"issuer": "https://a:b@id.example.com"},
    "issuer that is none": {"issuer": "https://[::1"},
    "return over http": {
        "redirect_uri": "http://hsm.example.com/ui/sign-in/oidc/answer"
    },
    "return elsewhere": {"redirect_uri": "https://hsm.example.com/ui/keys"},
    "return with fragment": {"redirect_uri": GOOD["redirect_uri"] + "#x"},
    "no openid": {"scopes": ["email"]},
    "two scopes in one": {"scopes": ["openid", "email profile"]},
    "no roles": {"roles": {}},
    "unknown role": {"roles": {"x": "root"}},
    "unknown field": {"audience": "x"},
    "leeway": {"leeway_seconds": 301},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD.keys())
def test_bad_files(tmp_path: Path, changes: dict[str, Any]) -> None:
    """
    An invalid file is rejected as a whole.
    """
    with pytest.raises(ConfigurationError, match="oidc"):
        load_oidc_config(write(tmp_path, **changes))


def test_file_writable_by_others(tmp_path: Path) -> None:
    """
    A file that others can write is rejected: it maps users to roles.
    """
    path = write(tmp_path)
    path.chmod(0o666)

    with pytest.raises(UnsafeFileModeError):
        load_oidc_config(path)


METADATA: Final = "/.well-known/openid-configuration"


@pytest.fixture
def settings(tmp_path: Path, issuer: OIDCIssuer) -> OIDCSettings:
    """Return the settings of a server for the provider."""
    return settings_for(issuer, tmp_path)


@pytest.fixture
def provider(settings: OIDCSettings) -> Provider:
    """Return the client of a front end."""
    return Provider(settings)


async def code_for(issuer: OIDCIssuer, provider: Provider) -> tuple[str, SignInState]:
    """Let Olga sign in at the provider; return the code and state of her callback."""
    url, started = await provider.begin("/ui/keys")
    fields = issuer.settle(url, "olga").fields
    assert started.state == fields["state"]
    await provider.check_sender(fields["iss"])
    return fields["code"], started


async def test_exchange(issuer: OIDCIssuer, provider: Provider) -> None:
    """
    A code is exchanged for an ID token, with PKCE, and nothing secret is in the URL.
    """
    url, started = await provider.begin("")
    fields = issuer.settle(url, "olga").fields
    token = await provider.exchange(fields["code"], started)

    assert 3 == len(token.split("."))
    assert "code_challenge_method=S256" in url
    for secret in (started.verifier, CLIENT_SECRET):
        assert secret not in url


async def test_code_of_another_browser(issuer: OIDCIssuer, provider: Provider) -> None:
    """
    A code is accepted only with the PKCE verifier of its request.
    """
    code, _ = await code_for(issuer, provider)
    _, other = await code_for(issuer, provider)

    with pytest.raises(ProviderError, match="rejected the authorization code"):
        await provider.exchange(code, other)


async def test_issuer_is_optional(issuer: OIDCIssuer, provider: Provider) -> None:
    """
    The issuer is optional if the metadata does not announce it.
    """
    issuer.change_metadata = lambda known: {
        name: value for name, value in known.items() if not name.endswith("_supported")
    }

    await provider.check_sender(None)


METADATA_CHANGES: Final[dict[str, dict[str, Any]]] = {
    "another issuer": {"issuer": "https://localhost"},
    "plain http": {"token_endpoint": "http://localhost/token"},
    "script": {"authorization_endpoint": "javascript:alert(1)"},
    "no endpoint": {"token_endpoint": None},
    "endpoint of another kind": {"authorization_endpoint": ["https://x"]},
}


@pytest.mark.parametrize(
    "changes", METADATA_CHANGES.values(), ids=METADATA_CHANGES.keys()
)
async def test_hostile_metadata(
    issuer: OIDCIssuer, provider: Provider, changes: dict[str, Any]
) -> None:
    """
    Invalid metadata never redirects a user.
    """
    issuer.change_metadata = lambda known: {**known, **changes}

    with pytest.raises(ProviderError):
        await provider.begin("")


ANSWERS: Final[dict[str, Callable[[], flask.Response]]] = {
    "empty": lambda: flask.Response(b""),
    "list": lambda: flask.jsonify([1]),
    "no token": lambda: flask.jsonify({"access_token": "x", "token_type": "Bearer"}),
    "number": lambda: flask.jsonify({"access_token": "x", "id_token": 7}),
    "long": lambda: flask.jsonify({"access_token": "x", "id_token": "x" * 9000}),
    "failed": lambda: flask.Response(b"oops", status=500),
    "page": lambda: flask.Response(b"<html>", content_type="text/html"),
}


@pytest.mark.parametrize("path", [METADATA, "/token"], ids=["metadata", "token"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
async def test_hostile_answers(
    issuer: OIDCIssuer,
    settings: OIDCSettings,
    path: str,
    answer: Callable[[], flask.Response],
) -> None:
    """
    Every malformed response is an error without secrets.
    """
    issuer.answers[path] = answer
    provider = Provider(settings)

    with pytest.raises(ProviderError) as caught:
        await provider.exchange(*(await code_for(issuer, provider)))
    assert CLIENT_SECRET not in repr(caught.value)


async def test_error_description_is_not_shown(
    issuer: OIDCIssuer, provider: Provider
) -> None:
    """
    A provider's error description is not shown.
    """
    issuer.answers["/token"] = lambda: flask.make_response(
        flask.jsonify(error="invalid_grant", error_description="<b>boo</b>"), 400
    )
    code, started = await code_for(issuer, provider)

    with pytest.raises(ProviderError) as caught:
        await provider.exchange(code, started)
    assert "boo" not in str(caught.value)


async def test_untrusted_certificate(settings: OIDCSettings, tmp_path: Path) -> None:
    """
    A provider with an untrusted certificate is rejected.
    """
    with OIDCIssuer(tmp_path / "stranger") as stranger:
        elsewhere = msgspec.structs.replace(settings, issuer=stranger.url)

        with pytest.raises(ProviderError):
            await Provider(elsewhere).begin("")


@pytest.mark.parametrize("fault", ["open", "gone"])
async def test_client_secret(
    issuer: OIDCIssuer, settings: OIDCSettings, fault: str
) -> None:
    """
    A secret that others can read, or that is missing, is not used.
    """
    path = settings.client_secret_file
    assert path is not None
    if fault == "open":
        path.chmod(0o644)
    else:
        path.unlink()

    with pytest.raises(ProviderError, match="client secret"):
        await Provider(settings).begin("")


async def test_metadata_are_cached(issuer: OIDCIssuer, settings: OIDCSettings) -> None:
    """
    The provider metadata is fetched once an hour.
    """
    now = 0.0
    asked = []

    def count(known: dict[str, Any]) -> dict[str, Any]:
        asked.append(now)
        return known

    issuer.change_metadata = count
    provider = Provider(settings, lambda: now)
    for now in (1.0, 2.0, 3601.0, 3602.0):  # noqa: B007 (the clock)
        await provider.begin("")

    assert [1.0, 3601.0] == asked


async def test_failed_fetch_is_not_repeated_at_once(
    issuer: OIDCIssuer, settings: OIDCSettings
) -> None:
    """
    After a failed fetch, sign-ins fail at once instead of queueing.
    """
    now = 0.0
    asked = []

    def lie(known: dict[str, Any]) -> dict[str, Any]:
        asked.append(now)
        return {**known, "issuer": "https://other.example"}

    issuer.change_metadata = lie
    provider = Provider(settings, lambda: now)
    for now in (1.0, 2.0, 5.0, 6.0, 7.0):  # noqa: B007 (the clock)
        with pytest.raises(ProviderError, match="another issuer"):
            await provider.begin("")

    assert [1.0, 6.0] == asked
    issuer.change_metadata = dict
    now = 11.0
    url, _ = await provider.begin("")
    assert url.startswith(issuer.url)


async def test_unreadable_ca_certificates(settings: OIDCSettings) -> None:
    """
    Without CA certificates, nobody is redirected.
    """
    assert settings.ca_bundle is not None
    settings.ca_bundle.unlink()

    with pytest.raises(ProviderError, match="CA certificates"):
        await Provider(settings).begin("")


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
