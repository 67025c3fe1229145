# SPDX-License-Identifier: MIT
"""Keys of a provider that are fetched from where its metadata say that they are."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import flask
import pytest
import requests
from joserfc.jwk import RSAKey

from hsm_core.errors import AuthenticationError
from hsm_server.config.settings import ServerSettings, TokenIssuer
from hsm_server.identity.clock import FlooredClock
from hsm_server.identity.id_tokens import ProviderTrust
from hsm_server.identity.key_sets import ProviderKeysTask, key_set_tasks
from hsm_server.identity.token_keys import Algorithm, key_from_pem, public_key_set
from tests.server.family import wait_until
from tests.server.oidc_issuer import CLIENT_ID, CLIENT_SECRET, REDIRECT, OIDCIssuer
from tests.server.process import Running, Site
from tests.server.test_id_tokens import KID, NONCE, token
from tests.server.test_id_tokens import settings as provider
from tests.server.token_kit import signer


class Fetching:
    """A task, and what it has delivered."""

    def __init__(self, issuer: OIDCIssuer) -> None:
        self.delivered: list[tuple[bytes | None, str]] = []
        settings = TokenIssuer(issuer=issuer.url, ca_bundle=issuer.bundle)
        self.task = ProviderKeysTask(
            settings, 30.0, lambda *found: self.delivered.append(found)
        )

    async def look(self) -> tuple[bytes | None, str]:
        """Fetch once; return what came of it."""
        await self.task.look()
        return self.delivered[-1]


async def test_rotated_keys_are_fetched(issuer: OIDCIssuer) -> None:
    """What the provider has now, and in the end from where it has them now."""
    fetching = Fetching(issuer)
    first = issuer.key_set()
    assert (first, "") == await fetching.look()

    issuer.key = other_key()
    assert (issuer.key_set(), "") == await fetching.look()
    issuer.answers["/moved"] = lambda: flask.Response(first)
    issuer.change_metadata = lambda said: {**said, "jwks_uri": f"{issuer.url}/moved"}
    assert (first, "") == await fetching.look()


async def test_a_tag_of_another_place_tells_nothing(issuer: OIDCIssuer) -> None:
    """What has not changed where the keys were is not what is where they are now."""
    fetching, asked = Fetching(issuer), []

    def answer() -> flask.Response:
        asked.append((flask.request.path, flask.request.headers.get("If-None-Match")))
        return flask.Response(b"{}", headers={"ETag": '"1"'})

    for place in ("/here", "/here", "/there"):
        issuer.answers[place] = answer
        issuer.change_metadata = lambda said, at=place: {  # type: ignore[misc]
            **said,
            "jwks_uri": f"{issuer.url}{at}",
        }
        assert (b"{}", "") == await fetching.look()

    assert [("/here", None), ("/here", '"1"'), ("/there", None)] == asked


async def test_an_issuer_may_end_with_a_slash() -> None:
    """One slash stands before the path of its metadata (section 4.1)."""
    settings = TokenIssuer(issuer="https://localhost:1/tenant/")
    told: list[str] = []
    task = ProviderKeysTask(settings, 30.0, lambda data, problem: told.append(problem))
    await task.look()

    page = "https://localhost:1/tenant/.well-known/openid-configuration"
    assert [f"Cannot fetch the keys of {page}: the connection failed."] == told


def other_key() -> RSAKey:
    """Return another key than the first."""
    return RSAKey.generate_key(2048, {"kid": "second"})


BAD: Final[dict[str, tuple[Callable[[dict[str, Any]], Any], str]]] = {
    "another's": (lambda m: {**m, "issuer": "https://other.example"}, "another issuer"),
    "no issuer": (lambda m: {"jwks_uri": m["jwks_uri"]}, "another issuer"),
    "a list": (lambda m: [m], "not valid"),
    "no place": (lambda m: {**m, "jwks_uri": None}, "not an https URL"),
    "no URL": (lambda m: {**m, "jwks_uri": "https://[::1"}, "not an https URL"),
    "no port": (lambda m: {**m, "jwks_uri": "https://a:99999"}, "not an https URL"),
    "no host": (lambda m: {**m, "jwks_uri": "https://\u00e4..b"}, "not an https URL"),
    "no IDN": (lambda m: {**m, "jwks_uri": "https://xn--/"}, "not an https URL"),
    "a file": (lambda m: {**m, "jwks_uri": "file:///etc/passwd"}, "not an https URL"),
    "http": (lambda m: {**m, "jwks_uri": "http://localhost/keys"}, "not an https URL"),
    "a user": (
        lambda m: {**m, "jwks_uri": "https://a:b@localhost"},
        "not an https URL",
    ),
    "a fragment": (
        lambda m: {**m, "jwks_uri": m["jwks_uri"] + "#a"},
        "not an https URL",
    ),
    "nothing": (lambda m: {**m, "jwks_uri": ""}, "not an https URL"),
    "long": (
        lambda m: {**m, "jwks_uri": "https://x/" + "a" * 2039},
        "not an https URL",
    ),
    "missing": (lambda m: {**m, "jwks_uri": m["jwks_uri"] + "/no"}, "HTTP 404"),
}


@pytest.mark.parametrize("name", BAD)
async def test_metadata_that_will_not_do(issuer: OIDCIssuer, name: str) -> None:
    """They are told in words, and bring no keys; good ones do again."""
    change, words = BAD[name]
    issuer.change_metadata = cast("Callable[[dict[str, Any]], dict[str, Any]]", change)
    fetching = Fetching(issuer)
    data, problem = await fetching.look()
    assert data is None
    assert words in problem

    issuer.change_metadata = lambda metadata: metadata
    assert (issuer.key_set(), "") == await fetching.look()


async def test_metadata_that_are_no_json(issuer: OIDCIssuer) -> None:
    """They say nothing."""
    page = "/.well-known/openid-configuration"
    issuer.answers[page] = lambda: flask.Response("<html>")

    assert "not valid" in (await Fetching(issuer).look())[1]


def test_who_has_a_file_fetches_nothing() -> None:
    """The file says it all."""

    def deliver(source: str, data: bytes | None, problem: str) -> None:
        raise AssertionError

    with_file = ServerSettings(oidc=provider())
    without = ServerSettings(oidc=provider(jwks_file=None))

    assert [] == key_set_tasks(with_file, deliver)
    assert 1 == len(key_set_tasks(without, deliver))


def redeems(provider_trust: ProviderTrust) -> bool:
    """Return whether a good new token is taken now."""
    try:
        provider_trust.tokens.redeem(token(jti=secrets.token_hex()), NONCE)
    except AuthenticationError:
        return False
    return True


async def test_the_vault_keeps_the_last_good_keys() -> None:
    """Nobody is let in before there are keys; a bad set changes nothing."""
    told: list[str] = []
    provider_trust = ProviderTrust(
        provider(jwks_file=None), told.append, FlooredClock()
    )
    good = public_key_set(
        [key_from_pem(signer("ES256").pem(), Algorithm("ES256"), KID)]
    )
    assert not redeems(provider_trust)

    provider_trust.take(good, "")
    assert "" == await provider_trust.look()
    assert redeems(provider_trust)
    provider_trust.take(b"<html>", "")
    assert "not valid" in await provider_trust.look()
    provider_trust.take(None, "gone.")
    assert "gone." == await provider_trust.look()
    assert redeems(provider_trust)
    provider_trust.take(json.dumps({"keys": []}).encode(), "")
    assert "holds no usable key" in await provider_trust.look()
    assert not redeems(provider_trust)
    assert "" == told[0]


@pytest.fixture(params=["process", "inline"])
def served(
    request: pytest.FixtureRequest, tmp_path: Path, issuer: OIDCIssuer
) -> Iterator[tuple[Site, Running]]:
    """Give a server that has the provider's keys from nowhere but the provider."""
    folder = tmp_path / "site"
    folder.mkdir(mode=0o700)
    site = Site(folder, request.param)
    secret, config = tmp_path / "client-secret", tmp_path / "oidc.yaml"
    for path, text in ((secret, CLIENT_SECRET), (config, config_text(issuer))):
        path.touch(mode=0o600)
        path.write_text(text)
    more = ("--oidc-config", str(config), "--auth-jwt-reload-secs", "0.5")
    with site.serve(*more) as running:
        yield site, running
        assert 0 == running.stop()


def config_text(issuer: OIDCIssuer) -> str:
    """Return a file that names the provider."""
    return json.dumps(
        {
            "issuer": issuer.url,
            "client_id": CLIENT_ID,
            "client_secret_file": "client-secret",
            "redirect_uri": REDIRECT,
            "ca_bundle": str(issuer.bundle),
            "roles_claim": "groups",
            "roles": {"hsm-operators": "Operator"},
        }
    )


def test_a_server_that_fetches(
    served: tuple[Site, Running], issuer: OIDCIssuer
) -> None:
    """People sign in by whatever key the provider has now."""
    site, running = served
    host, port = running.address

    def lands() -> str:
        base = f"https://{host}:{port}"
        with requests.Session() as browser:
            browser.trust_env = False
            browser.verify = str(site.authority.path)

            def get(path: str) -> str:
                answer = browser.get(base + path, allow_redirects=False)
                return answer.headers.get("Location", "")

            away = get("/ui/sign-in/oidc")
            back = urlsplit(issuer.settle(away, "olga").url)
            return get(f"{back.path}?{back.query}")

    wait_until(lambda: lands() == "/ui")
    issuer.key = other_key()
    wait_until(lambda: lands() == "/ui")
    assert "provider keys loaded" in [line["event"] for line in site.log()]
