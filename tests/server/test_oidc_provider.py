# SPDX-License-Identifier: MIT
"""A front end and a real provider, which may be a hostile one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import flask
import msgspec
import pytest

from hsm_core.model import Role
from hsm_server.config.settings import OIDCSettings
from hsm_server.identity.oidc_client import Provider, ProviderError, SignInState
from tests.server.oidc_issuer import CLIENT_ID, CLIENT_SECRET, OIDCIssuer

REDIRECT: Final = "https://hsm.example.com/ui/sign-in/oidc/answer"
METADATA: Final = "/.well-known/openid-configuration"


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[OIDCIssuer]:
    """Give a provider that runs."""
    with OIDCIssuer(tmp_path / "issuer", REDIRECT) as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, issuer: OIDCIssuer) -> OIDCSettings:
    """Give what a server knows of it."""
    secret = tmp_path / "client-secret"
    secret.touch(mode=0o600)
    secret.write_text(CLIENT_SECRET + "\n")
    return OIDCSettings(
        issuer=issuer.url,
        client_id=CLIENT_ID,
        redirect_uri=REDIRECT,
        client_secret_file=secret,
        ca_bundle=issuer.bundle,
        jwks_file=tmp_path / "keys.json",
        roles={"hsm-operators": Role.OPERATOR},
    )


@pytest.fixture
def provider(settings: OIDCSettings) -> Provider:
    """Give what a front end has."""
    return Provider(settings)


async def code_for(issuer: OIDCIssuer, provider: Provider) -> tuple[str, SignInState]:
    """Let Olga sign in at the provider; return what her browser comes back with."""
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


async def test_code_is_good_once(issuer: OIDCIssuer, provider: Provider) -> None:
    """
    The provider does not take a code again.
    """
    code, started = await code_for(issuer, provider)
    await provider.exchange(code, started)

    with pytest.raises(ProviderError, match="rejected the authorization code"):
        await provider.exchange(code, started)


async def test_code_of_another_browser(issuer: OIDCIssuer, provider: Provider) -> None:
    """
    A code is worth nothing without the verifier of who has asked for it.
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
    Whatever stands in the place of a code is refused in the same way.
    """
    _, started = await provider.begin("")

    with pytest.raises(ProviderError):
        await provider.exchange(code, started)


@pytest.mark.parametrize("sender", [None, "https://other.example.com"])
async def test_answer_of_another_provider(
    issuer: OIDCIssuer, provider: Provider, sender: str | None
) -> None:
    """
    An answer that another provider has given, or that doesn't say whose it is, is none.
    """
    with pytest.raises(ProviderError):
        await provider.check_sender(sender)


async def test_sender_may_be_unsaid(issuer: OIDCIssuer, provider: Provider) -> None:
    """
    A provider that does not promise to name itself need not.
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
    Nobody is sent anywhere by what a provider should not say of itself.
    """
    issuer.change_metadata = lambda known: {**known, **changes}

    with pytest.raises(ProviderError):
        await provider.begin("")


def endless() -> flask.Response:
    """Answer with more than anybody wants to read."""
    return flask.Response(b"x" * 65536 for _ in range(1000))


def slow() -> flask.Response:
    """Answer a byte at a time."""

    def pieces() -> Iterator[bytes]:
        for _ in range(600):
            time.sleep(0.05)
            yield b" "

    return flask.Response(pieces())


def moved() -> flask.Response:
    """Send whoever asks elsewhere."""
    answer: Any = flask.redirect("/elsewhere")
    return answer  # type: ignore[no-any-return]


def zipped() -> flask.Response:
    """Answer with what unpacks to much more."""
    return flask.Response(b"\x1f\x8b" * 100, headers={"Content-Encoding": "gzip"})


ANSWERS: Final[dict[str, Callable[[], flask.Response]]] = {
    "endless": endless,
    "slow": slow,
    "moved": moved,
    "zipped": zipped,
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
    Whatever a provider answers, the end is an error that tells nothing secret.
    """
    issuer.answers[path] = answer
    provider = Provider(settings, answer_seconds=1.0)

    with pytest.raises(ProviderError) as caught:
        await provider.exchange(*(await code_for(issuer, provider)))
    assert CLIENT_SECRET not in repr(caught.value)


async def test_refusal_is_not_repeated(issuer: OIDCIssuer, provider: Provider) -> None:
    """
    What a provider says of its reasons goes no further.
    """
    issuer.answers["/token"] = lambda: flask.make_response(
        flask.jsonify(error="invalid_grant", error_description="<b>boo</b>"), 400
    )
    code, started = await code_for(issuer, provider)

    with pytest.raises(ProviderError) as caught:
        await provider.exchange(code, started)
    assert "boo" not in str(caught.value)


async def test_stranger_in_its_place(settings: OIDCSettings, tmp_path: Path) -> None:
    """
    A provider whose certificate others have signed is none.
    """
    with OIDCIssuer(tmp_path / "stranger", REDIRECT) as stranger:
        elsewhere = msgspec.structs.replace(settings, issuer=stranger.url)

        with pytest.raises(ProviderError):
            await Provider(elsewhere).begin("")


@pytest.mark.parametrize("fault", ["open", "gone"])
async def test_client_secret(
    issuer: OIDCIssuer, settings: OIDCSettings, fault: str
) -> None:
    """
    A secret that others may read, or that is not there, is not used.
    """
    path = settings.client_secret_file
    assert path is not None
    if fault == "open":
        path.chmod(0o644)
    else:
        path.unlink()

    with pytest.raises(ProviderError, match="client secret"):
        await Provider(settings).begin("")


async def test_metadata_are_kept_for_a_time(
    issuer: OIDCIssuer, settings: OIDCSettings
) -> None:
    """
    A provider is asked about itself once an hour.
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


async def test_a_provider_in_trouble_is_left_alone(
    issuer: OIDCIssuer, settings: OIDCSettings
) -> None:
    """
    Strangers who ask for it again and again do not wait for one another.
    """
    now = 0.0
    asked = []

    def lie(known: dict[str, Any]) -> dict[str, Any]:
        asked.append(now)
        return {**known, "issuer": "https://other.example"}

    issuer.change_metadata = lie
    provider = Provider(settings, lambda: now)
    for now in (1.0, 2.0, 5.0, 6.0, 7.0):  # noqa: B007 (the clock)
        with pytest.raises(ProviderError, match="differs from the configuration"):
            await provider.begin("")

    assert [1.0, 6.0] == asked
    issuer.change_metadata = dict
    now = 11.0
    url, _ = await provider.begin("")
    assert url.startswith(issuer.url)


async def test_certificates_that_cannot_be_read(settings: OIDCSettings) -> None:
    """
    Nobody is sent to a provider that can't be told from others.
    """
    assert settings.ca_bundle is not None
    settings.ca_bundle.unlink()

    with pytest.raises(ProviderError, match="CA certificates"):
        await Provider(settings).begin("")
