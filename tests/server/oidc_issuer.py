# SPDX-License-Identifier: MIT
"""
A small provider of OpenID Connect on loopback, over HTTPS: the library's, in Flask.

What it says can be changed, to make it a hostile one.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import flask
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, ClientMixin
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc9207 import IssuerParameter
from authlib.oidc.core import UserInfo
from authlib.oidc.core.grants import OpenIDCode
from joserfc.jwk import RSAKey

from hsm_core.model import Role
from hsm_server.config.settings import OIDCSettings
from hsm_server.identity.oidc_config import RETURN_PATH
from tests.tls_application import TLSApplication

CLIENT_ID: Final = "ferrohsm"
CLIENT_SECRET: Final = "client secret, of tests only"
REDIRECT: Final = f"https://hsm.example.com{RETURN_PATH}"
_CODE_SECONDS: Final = 60

Change = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class _Client(ClientMixin):  # type: ignore[misc]
    redirect_uri: str

    def get_client_id(self) -> str:
        return CLIENT_ID

    def get_default_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri == self.redirect_uri

    def check_client_secret(self, client_secret: str) -> bool:
        return secrets.compare_digest(client_secret, CLIENT_SECRET)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_basic"

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "authorization_code"


@dataclass
class _Code(AuthorizationCodeMixin):  # type: ignore[misc]
    user: str
    scope: str
    redirect_uri: str
    nonce: str
    code_challenge: str
    code_challenge_method: str
    ends: float = field(default_factory=lambda: time.monotonic() + _CODE_SECONDS)

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope

    def get_nonce(self) -> str:
        return self.nonce

    def get_auth_time(self) -> int:
        return int(time.time())

    def get_acr(self) -> None:
        return None

    def get_amr(self) -> None:
        return None


@dataclass(frozen=True)
class Settled:
    """Where a browser is sent back to, and with what."""

    url: str

    @property
    def fields(self) -> dict[str, str]:
        """The query of it."""
        return {k: v[0] for k, v in parse_qs(urlsplit(self.url).query).items()}


class OIDCIssuer(TLSApplication):
    """
    A provider that knows whoever signs in by name, and what they may be.

    Args:
        folder: For certificates.

        redirect_uri: Of its one client.

        host: What it calls itself.

    Attributes:
        people: What each is told to be in the claim ``groups``.
        also: What an ID token says besides, or in the place of what is right.
        change_metadata: Changes what the provider says of itself.
        answers: Whole answers by path, in the place of the right ones.
        bundle: PEM file of who has signed its certificate.
    """

    def __init__(
        self, folder: Path, redirect_uri: str = REDIRECT, host: str = "localhost"
    ) -> None:
        self.redirect_uri = redirect_uri
        self._host = host
        self.people = {"olga": ["hsm-operators"], "anton": ["hsm-auditors", "staff"]}
        self.also: dict[str, Any] = {}
        self.change_metadata: Change = lambda metadata: metadata
        self.answers: dict[str, Callable[[], flask.Response]] = {}
        self.key = _key()
        self._codes: dict[str, _Code] = {}
        super().__init__(folder, self._application())

    @property
    def url(self) -> str:
        """The issuer's name."""
        return f"https://{self._host}:{self.port}"

    def key_set(self) -> bytes:
        """Return its public keys (RFC 7517)."""
        public = self.key.as_dict(private=False)
        row = {**public, "use": "sig", "alg": "RS256"}
        return json.dumps({"keys": [row]}).encode()

    def settle(self, url: str, user: str) -> Settled:
        """Sign somebody in who was sent to *url*, as their browser would."""
        parts = urlsplit(url)
        client = self._flask.test_client()
        answer = client.post(f"{parts.path}?{parts.query}", data={"user": user})
        assert 302 == answer.status_code, answer.text
        return Settled(answer.location)

    def _application(self) -> flask.Flask:
        app = self._flask = flask.Flask("oidc")
        client = _Client(self.redirect_uri)
        server = AuthorizationServer(
            app,
            query_client=lambda name: client if name == CLIENT_ID else None,
            save_token=lambda token, request: None,
        )
        server.register_grant(
            _grant(self._codes), [CodeChallenge(required=True), _claims(self)]
        )
        server.register_extension(_NamedIssuer(self))
        app.before_request(self._other_answer)
        app.add_url_rule(
            "/.well-known/openid-configuration", view_func=self._metadata_view
        )
        app.add_url_rule("/keys", view_func=lambda: self.key_set())

        @app.get("/authorize")
        def ask() -> str:
            names = "".join(
                f"<button name=user value={name}>{name}</button>"
                for name in self.people
            )
            form = f"<form method=post>{names}</form>"
            return f"<!doctype html><title>Provider</title>{form}"

        @app.post("/authorize")
        def answer() -> flask.Response:
            user = flask.request.form["user"]
            grant = server.get_consent_grant(end_user=user)
            made: flask.Response = server.create_authorization_response(
                grant_user=user, grant=grant
            )
            return made

        @app.post("/token")
        def token() -> flask.Response:
            made: flask.Response = server.create_token_response()
            return made

        return app

    def _other_answer(self) -> flask.Response | None:
        other = self.answers.get(flask.request.path)
        return other() if other else None

    def _metadata_view(self) -> flask.Response:
        return flask.jsonify(
            self.change_metadata(
                {
                    "issuer": self.url,
                    "authorization_endpoint": f"{self.url}/authorize",
                    "token_endpoint": f"{self.url}/token",
                    "jwks_uri": f"{self.url}/keys",
                    "response_types_supported": ["code"],
                    "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["RS256"],
                    "code_challenge_methods_supported": ["S256"],
                    "authorization_response_iss_parameter_supported": True,
                }
            )
        )


def settings_for(issuer: OIDCIssuer, folder: Path, **changes: Any) -> OIDCSettings:
    """Return the settings of a server for a provider, with its secret in a file."""
    secret, keys = folder / "client-secret", folder / "keys.json"
    for path, text in ((secret, f"{CLIENT_SECRET}\n"), (keys, issuer.key_set())):
        path.touch(mode=0o600)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    given = {
        "issuer": issuer.url,
        "client_id": CLIENT_ID,
        "redirect_uri": REDIRECT,
        "client_secret_file": secret,
        "ca_bundle": issuer.bundle,
        "jwks_file": keys,
        "roles": {"hsm-operators": Role.OPERATOR, "hsm-auditors": Role.AUDITOR},
    }
    return OIDCSettings(**{**given, **changes})


@cache
def _key() -> RSAKey:
    """Return the key of all providers: making one takes a while."""
    return RSAKey.generate_key(2048, {"kid": "first"})


class _NamedIssuer(IssuerParameter):  # type: ignore[misc]
    def __init__(self, issuer: OIDCIssuer) -> None:
        self._issuer = issuer

    def get_issuer(self) -> str:
        return self._issuer.url


def _grant(codes: dict[str, _Code]) -> type:
    class Grant(AuthorizationCodeGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic",)

        def save_authorization_code(self, code: str, request: Any) -> None:
            data = request.payload.data
            codes[code] = _Code(
                user=request.user,
                scope=request.payload.scope,
                redirect_uri=request.payload.redirect_uri,
                nonce=data.get("nonce", ""),
                code_challenge=data["code_challenge"],
                code_challenge_method=data["code_challenge_method"],
            )

        def query_authorization_code(self, code: str, client: Any) -> _Code | None:
            found = codes.get(code)
            return found if found and time.monotonic() < found.ends else None

        def delete_authorization_code(self, authorization_code: _Code) -> None:
            for code, known in list(codes.items()):
                if known is authorization_code:
                    del codes[code]

        def authenticate_user(self, authorization_code: _Code) -> str:
            return authorization_code.user

    return Grant


def _claims(issuer: OIDCIssuer) -> OpenIDCode:
    class Claims(OpenIDCode):  # type: ignore[misc]
        def exists_nonce(self, nonce: str, request: Any) -> bool:
            return False

        def resolve_client_private_key(self, client: Any) -> Any:
            return issuer.key

        def get_client_claims(self, client: Any) -> dict[str, Any]:
            return {"iss": issuer.url, "aud": [CLIENT_ID]}

        def get_client_algorithm(self, client: Any) -> str:
            return "RS256"

        def get_encode_header(self, client: Any) -> dict[str, Any]:
            return {"alg": "RS256", "kid": issuer.key.kid}

        def get_compatible_claims(self, request: Any) -> dict[str, Any]:
            now = int(time.time())
            said = {**self.get_client_claims(request.client), "iat": now}
            return {**said, "exp": now + 300}

        def generate_user_info(self, user: str, scope: str) -> UserInfo:
            said = {"sub": f"id-{user}", "preferred_username": user}
            return UserInfo(**said, groups=issuer.people[user], **issuer.also)

    return Claims(require_nonce=True)
