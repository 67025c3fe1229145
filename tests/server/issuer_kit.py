# SPDX-License-Identifier: MIT
"""Access tokens in the shapes of real issuers, their keys, and rules that map them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hsm_core.policies import Policy, parse_policy
from hsm_server.config.settings import TokenRules
from hsm_server.identity.token_keys import Algorithm, TokenTrust, key_from_pem
from tests.server.token_kit import Signer, signer

AUDIENCE: Final = "https://hsm.example.com"
KEYCLOAK: Final = "https://id.example.com/realms/hsm"
GITHUB: Final = "https://token.actions.githubusercontent.com"
GITLAB: Final = "https://gitlab.example.com"
KUBERNETES: Final = "https://kubernetes.default.svc.cluster.local"
SPIFFE: Final = "spiffe://example.org"
ENTRA: Final = "https://login.microsoftonline.com/0f3a1c5e-0000-4000-8000-1/v2.0"
AUTH0: Final = "https://example.eu.auth0.com/"
OKTA: Final = "https://example.okta.com/oauth2/default"
GOOGLE: Final = "https://accounts.google.com"


@dataclass(frozen=True)
class Issued:
    """
    Token as an issuer makes it.

    Attributes:
        rule: Identity rule of a policy, in flow style, without issuer and audience.
        expected: Principal and role by that rule.
    """

    issuer: str
    algorithm: str
    number: int
    claims: Mapping[str, Any]
    rule: str
    expected: tuple[str, str]
    header: Mapping[str, Any] = field(default_factory=lambda: {"typ": "JWT"})

    @property
    def signer(self) -> Signer:
        """The issuer's key."""
        return signer(self.algorithm, self.number)

    def said(self, **changes: Any) -> dict[str, Any]:
        """Return the claims, changed; None takes one away."""
        now = int(time.time())
        times = {"iat": now, "exp": now + 300}
        every = {"aud": AUDIENCE, **times, **self.claims, **changes}
        return {name: value for name, value in every.items() if value is not None}

    def token(self, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """Return a token; *changes* are of its claims, *header* of its header."""
        named = {"alg": self.algorithm, "kid": f"kid-{self.number}", **self.header}
        return self.signer.token_of({**named, **(header or {})}, self.said(**changes))

    def trust(self) -> TokenTrust:
        """Return the trust in the issuer."""
        kind, kid = Algorithm(self.algorithm), f"kid-{self.number}"
        key = key_from_pem(self.signer.pem(), kind, kid)
        return TokenTrust((key,), TokenRules(), self.issuer)

    def section(self) -> str:
        """Return the whole rule."""
        return f"{self.rule}, issuer: '{self.issuer}', audience: '{AUDIENCE}'"


ISSUED: Final[dict[str, Issued]] = {
    "keycloak": Issued(
        KEYCLOAK,
        "RS256",
        1,
        {
            "iss": KEYCLOAK,
            "sub": "5f2c7a86-1d0c-4a39-9d5e-3f9c2f1c7a10",
            "aud": [AUDIENCE, "account"],
            "jti": "onrtac:3f1c2a4e-7a0e-4b0c-8f1e-1c2d3e4f5a6b",
            "typ": "Bearer",
            "azp": "hsm-cli",
            "acr": "1",
            "realm_access": {"roles": ["hsm-operators", "offline_access"]},
            "resource_access": {"account": {"roles": ["view-profile"]}},
            "scope": "openid profile",
            "preferred_username": "olga",
            "email_verified": True,
        },
        "principal_claim: preferred_username, roles: [Operator], "
        "claims: {typ: Bearer, /realm_access/roles: hsm-operators}",
        ("olga", "Operator"),
    ),
    "github": Issued(
        GITHUB,
        "RS256",
        2,
        {
            "iss": GITHUB,
            "sub": "repo:example/app:environment:production",
            "jti": "7d0c5a6e-4c39-4a0f-9c8c-6c1d6b2d7b11",
            "environment": "production",
            "ref": "refs/heads/main",
            "ref_type": "branch",
            "repository": "example/app",
            "repository_id": "74",
            "repository_owner": "example",
            "repository_owner_id": "65",
            "repository_visibility": "private",
            "actor": "octocat",
            "actor_id": "12",
            "workflow": "release",
            "job_workflow_ref": "example/app/.github/workflows/a.yml@refs/heads/main",
            "head_ref": "",
            "base_ref": "",
            "event_name": "push",
            "run_id": "101",
            "run_attempt": "1",
            "runner_environment": "github-hosted",
        },
        "principal: ci-app, roles: [Service], claims: {repository: example/app, "
        "repository_owner_id: '65', environment: production}",
        ("ci-app", "Service"),
        {"typ": "JWT", "x5t": "zp2cyLUgWZF1HVZx3Wq5oQ0X2ng"},
    ),
    "gitlab": Issued(
        GITLAB,
        "RS256",
        3,
        {
            "iss": GITLAB,
            "sub": "project_path:payments/api:ref_type:branch:ref:main",
            "jti": "2a1b9c3d-7f2e-4d13-8e3a-6b5c4d3e2f1a",
            "namespace_id": "72",
            "namespace_path": "payments",
            "project_id": "20",
            "project_path": "payments/api",
            "user_login": "sam",
            "pipeline_source": "push",
            "ref": "main",
            "ref_type": "branch",
            "ref_protected": "true",
            "groups_direct": ["payments"],
            "runner_id": 1,
        },
        "principal: payments-api, roles: [Service], claims: {project_id: '20', "
        "ref_protected: 'true', runner_id: 1}",
        ("payments-api", "Service"),
    ),
    "kubernetes": Issued(
        KUBERNETES,
        "RS256",
        4,
        {
            "iss": KUBERNETES,
            "aud": [AUDIENCE],
            "sub": "system:serviceaccount:build:signer",
            "jti": "ea28ed49-2e11-4280-9ec5-bc3d1d84661a",
            "kubernetes.io": {
                "namespace": "build",
                "node": {"name": "node-1", "uid": "58456cb0-dd00-45ed-b797-5578fdce"},
                "pod": {"name": "signer-69cbf", "uid": "778a530c-b3f4-47c0-9cd5-ab"},
                "serviceaccount": {"name": "signer", "uid": "14ee3fa4-a7e2-420f-9f9a"},
            },
        },
        "principal: build-signer, roles: [Service], claims: {/kubernetes.io/namespace: "
        "build, /kubernetes.io/serviceaccount/name: signer}",
        ("build-signer", "Service"),
        {},
    ),
    "spiffe": Issued(
        SPIFFE,
        "ES256",
        5,
        {"aud": [AUDIENCE], "sub": "spiffe://example.org/ns/build/sa/signer"},
        "principal: mesh-signer, roles: [Service], "
        "claims: {sub: 'spiffe://example.org/ns/build/sa/*'}",
        ("mesh-signer", "Service"),
    ),
    "entra": Issued(
        ENTRA,
        "RS256",
        6,
        {
            "iss": ENTRA,
            "sub": "AAAAAAAAAAAAAAAAAAAAAMLkPz2b1Kj2q0Y0R3xX7lU",
            "oid": "a9d9a2b7-1b2c-4a4f-8e0b-0c9f6e3f0a11",
            "tid": "0f3a1c5e-0000-4000-8000-1",
            "azp": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
            "azpacr": "0",
            "name": "Grace Example",
            "preferred_username": "grace@example.com",
            "roles": ["Hsm.Auditor"],
            "scp": "access",
            "uti": "abc",
            "ver": "2.0",
        },
        "principal: grace, roles: [Auditor], "
        "claims: {oid: a9d9a2b7-1b2c-4a4f-8e0b-0c9f6e3f0a11, roles: Hsm.Auditor}",
        ("grace", "Auditor"),
    ),
    "auth0": Issued(
        AUTH0,
        "RS256",
        7,
        {
            "iss": AUTH0,
            "sub": "auth0|6543210",
            "aud": [AUDIENCE, "https://example.eu.auth0.com/userinfo"],
            "client_id": "JDx2kfSGJmNLbN",
            "jti": "SBdVcnPYe6",
            "scope": "openid",
            "https://hsm.example.com/roles": ["operators"],
        },
        "principal: oscar, roles: [Operator], claims: {sub: 'auth0|6543210', "
        "'https://hsm.example.com/roles': operators}",
        ("oscar", "Operator"),
        {"typ": "at+jwt"},
    ),
    "okta": Issued(
        OKTA,
        "RS256",
        8,
        {
            "ver": 1,
            "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
            "iss": OKTA,
            "cid": "0oaimdbuiahnXvOt7357",
            "uid": "00uin7ap0tWrWr0bk357",
            "scp": ["openid", "hsm"],
            "sub": "otto@example.com",
            "groups": ["Everyone", "hsm"],
        },
        "principal: otto, roles: [Operator], "
        "claims: {uid: 00uin7ap0tWrWr0bk357, groups: hsm, scp: hsm}",
        ("otto", "Operator"),
    ),
    "google": Issued(
        GOOGLE,
        "RS256",
        9,
        {
            "iss": GOOGLE,
            "azp": "115473",
            "sub": "115473",
            "email": "signer@example.iam.gserviceaccount.com",
            "email_verified": True,
        },
        "principal: cloud-signer, roles: [Service], claims: {email_verified: true, "
        "email: signer@example.iam.gserviceaccount.com}",
        ("cloud-signer", "Service"),
    ),
}
"""Tokens by name of the issuer."""


def mapping_policy(*names: str) -> Policy:
    """Return a policy with the rules for these issuers."""
    rows = "".join(f"  - {{{ISSUED[name].section()}}}\n" for name in names)
    return parse_policy(f"version: 1\nextends: default\nidentities:\n{rows}")
