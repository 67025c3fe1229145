# SPDX-License-Identifier: MIT
"""A server that takes tokens of several issuers: keys fetched and from files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from hsm_server.config.settings import ServerSettings, TokenIssuer, TokenRules
from hsm_server.identity.key_sets import key_set_tasks
from hsm_server.identity.token_keys import public_key_set
from hsm_server.identity.token_sources import IssuerKeys
from tests.server.family import wait_until
from tests.server.issuer_kit import AUDIENCE, ISSUED, mapping_policy
from tests.server.oidc_issuer import OIDCIssuer
from tests.server.process import Running, Site, client_context, request
from tests.server.token_kit import Signer

PATH = "/api/v1/status"


def written(path: Path, text: str) -> Path:
    """Write a file, all at once."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.rename(path)
    return path


def policy_of(issuer: str) -> str:
    """Return a policy for people of an issuer, and for a service of a mesh."""
    return mapping_policy("spiffe").text + (
        "  - {principal_claim: preferred_username, roles: [Auditor], "
        f"issuer: '{issuer}', audience: '{AUDIENCE}', claims: {{groups: hsm}}}}\n"
    )


@pytest.fixture
def served(tmp_path: Path, issuer: OIDCIssuer) -> Iterator[tuple[Site, Running]]:
    """Give a server that has no token key of its own, and two issuers."""
    folder = tmp_path / "site"
    folder.mkdir(mode=0o700)
    site = Site(folder)
    bundle = public_key_set(ISSUED["spiffe"].trust().keys).decode()
    written(folder / "bundle.json", bundle)
    sections = [
        {"issuer": issuer.url, "ca_bundle": str(issuer.bundle)},
        {"issuer": ISSUED["spiffe"].issuer, "jwks_file": "bundle.json"},
    ]
    issuers = written(folder / "issuers.yaml", json.dumps({"issuers": sections}))
    policy = written(folder / "policy.yaml", policy_of(issuer.url))
    flags = ("--token-issuers", str(issuers), "--policy-config", str(policy))
    command = [*flags, "--auth-jwt-reload-secs", "0.5"]
    with site.serve(*command, changes={"FERROHSM_JWT_SECRET": ""}) as running:
        yield site, running
        assert 0 == running.stop()


def person(issuer: OIDCIssuer, **changes: Any) -> str:
    """Return an access token of a person, signed with the issuer's key of now."""
    said = {
        "iss": issuer.url,
        "sub": "id-olga",
        "preferred_username": "olga",
        "groups": ["hsm"],
    }
    key = Signer("RS256", issuer.key.private_key)
    header = {"alg": "RS256", "kid": issuer.key.kid, "typ": "at+jwt"}
    return key.token_of(header, ISSUED["keycloak"].said(**{**said, **changes}))


def test_two_issuers(served: tuple[Site, Running], issuer: OIDCIssuer) -> None:
    """Both are accepted, rotate their keys, and are withdrawn by the policy."""
    site, running = served
    mesh = ISSUED["spiffe"]
    context = client_context(site.authority)

    def status(token: str) -> int:
        try:
            answer = request(running.address, context, "GET", PATH, token=token)
        except (OSError, HTTPException):
            return 0
        return answer.status

    wait_until(lambda: status(person(issuer)) == 200)
    assert 200 == status(mesh.token())
    assert 401 == status(person(issuer, aud="other"))
    assert 401 == status(person(issuer, groups=["staff"]))
    former = issuer.key
    issuer.key = RSAKey.generate_key(2048, {"kid": "second"})
    wait_until(lambda: status(person(issuer)) == 200)
    fresh, issuer.key = issuer.key, former
    assert 401 == status(person(issuer))
    issuer.key = fresh
    written(site.folder / "policy.yaml", policy_of("https://other.example"))
    wait_until(lambda: status(person(issuer)) == 401)
    assert 200 == status(mesh.token())
    written(
        site.folder / "bundle.json",
        public_key_set(ISSUED["github"].trust().keys).decode(),
    )
    wait_until(lambda: status(mesh.token()) == 401)
    events = [line for line in site.log() if line["event"] == "token keys loaded"]
    assert {issuer.url, mesh.issuer} == {line["issuer"] for line in events}


def test_a_secret_in_a_key_set_of_an_issuer(tmp_path: Path) -> None:
    """It proves nothing of anybody: only public keys count."""
    rows = json.loads(public_key_set(ISSUED["spiffe"].trust().keys))["keys"]
    secret = {"kty": "oct", "k": "A" * 43, "kid": "secret"}
    path = written(tmp_path / "keys.json", json.dumps({"keys": [*rows, secret]}))
    keys = IssuerKeys("a", path, TokenRules(), lambda _: None, lambda _: None)

    assert (ISSUED["spiffe"].trust().keys, "a") == (keys.first.keys, keys.first.issuer)


def test_what_is_fetched() -> None:
    """Metadata, a key set by its URL, and nothing of who has a file."""
    by_file = TokenIssuer(issuer="a", jwks_file=Path("a.json"))
    by_url = TokenIssuer(issuer="b", jwks_url="https://b.example/keys")
    by_metadata = TokenIssuer(issuer="https://c.example")

    def tasks(*issuers: TokenIssuer) -> int:
        settings = ServerSettings(token_issuers=issuers)
        return len(key_set_tasks(settings, lambda *_: None))

    assert (0, 1, 1) == (tasks(by_file), tasks(by_url), tasks(by_metadata))
    assert 2 == tasks(by_file, by_url, by_metadata)
