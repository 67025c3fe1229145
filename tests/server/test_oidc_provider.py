# SPDX-License-Identifier: MIT
"""OpenID Connect client against a real provider, which may be hostile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import flask
import msgspec
import pytest

from hsm_server.config.settings import OIDCSettings
from hsm_server.identity.oidc_client import Provider, ProviderError, SignInState
from tests.server.oidc_issuer import CLIENT_SECRET, OIDCIssuer, settings_for

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


async def test_code_is_accepted_once(issuer: OIDCIssuer, provider: Provider) -> None:
    """
    The provider accepts a code once.
    """
    code, started = await code_for(issuer, provider)
    await provider.exchange(code, started)

    with pytest.raises(ProviderError, match="rejected the authorization code"):
        await provider.exchange(code, started)


async def test_code_of_another_browser(issuer: OIDCIssuer, provider: Provider) -> None:
    """
    A code is accepted only with the PKCE verifier of its request.
    """
    code, _ = await code_for(issuer, provider)
    _, other = await code_for(issuer, provider)

    with pytest.raises(ProviderError, match="rejected the authorization code"):
        await provider.exchange(code, other)


@pytest.mark.parametrize("code", ["", "invented", "a b&c=d", "\u0000", "é" * 3000])
async def test_invented_codes(
    issuer: OIDCIssuer, provider: Provider, code: str
) -> None:
    """
    Invalid codes are all rejected in the same way.
    """
    _, started = await provider.begin("")

    with pytest.raises(ProviderError):
        await provider.exchange(code, started)


@pytest.mark.parametrize("sender", [None, "https://other.example.com"])
async def test_response_of_another_provider(
    issuer: OIDCIssuer, provider: Provider, sender: str | None
) -> None:
    """
    A response of another provider, or without issuer, is rejected.
    """
    with pytest.raises(ProviderError):
        await provider.check_sender(sender)


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
