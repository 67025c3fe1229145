# SPDX-License-Identifier: MIT
"""
A provider of OpenID Connect on loopback with public clients: authlib's, in Flask.

It knows the authorization code grant with PKCE, device codes, refresh tokens that are
good once, and revocation. Its access tokens are JWTs.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import flask
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, ClientMixin, TokenMixin
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant, RefreshTokenGrant
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc8628 import (
    DeviceAuthorizationEndpoint,
    DeviceCodeGrant,
    DeviceCredentialDict,
)
from authlib.oauth2.rfc9207 import IssuerParameter
from joserfc import jwt
from joserfc.jwk import ECKey

from tests.tls_application import TLSApplication

CLIENT_ID: Final = "hsm-cli"
AUDIENCE: Final = "https://hsm.example.com"
LIFETIME: Final = 300
_LOOPBACK: Final = re.compile(r"http://127\.0\.0\.1:\d{1,5}/")
_GRANTS: Final = (
    "authorization_code",
    "refresh_token",
    DeviceCodeGrant.GRANT_TYPE,
)


class _Client(ClientMixin):  # type: ignore[misc]
    def get_client_id(self) -> str:
        return CLIENT_ID

    def get_default_redirect_uri(self) -> str:
        return ""

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return _LOOPBACK.fullmatch(redirect_uri) is not None

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return bool(method == "none")

    def check_response_type(self, response_type: str) -> bool:
        return bool(response_type == "code")

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in _GRANTS


@dataclass
class _Code(AuthorizationCodeMixin):  # type: ignore[misc]
    user: str
    scope: str
    redirect_uri: str
    code_challenge: str
    code_challenge_method: str

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope


@dataclass
class _Refresh(TokenMixin):  # type: ignore[misc]
    user: str
    scope: str

    def check_client(self, client: Any) -> bool:
        return isinstance(client, _Client)

    def get_scope(self) -> str:
        return self.scope

    def get_expires_in(self) -> int:
        return 0

    def is_expired(self) -> bool:
        return False

    def is_revoked(self) -> bool:
        return False


@dataclass
class _State:
    """What the provider remembers."""

    codes: dict[str, _Code] = field(default_factory=dict)
    refresh_tokens: dict[str, _Refresh] = field(default_factory=dict)
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)


class OIDCProvider(TLSApplication):
    """
    A provider on loopback.

    Args:
        folder: For certificates.

    Attributes:
        groups: Groups in the access tokens of a user, by name.
        metadata: Changes of its metadata.
        bundle: PEM file of its CA.
        requests: Method and path of each request.
        answers: What is said to each question after a device: a user and whether they
            agreed, None for nobody yet, or "slow down".
    """

    def __init__(self, folder: Path) -> None:
        self.groups = {"olga": ["hsm-operators"], "anton": ["hsm-auditors"]}
        self.metadata: dict[str, Any] = {}
        self.requests: list[str] = []
        self.answers: list[tuple[str, bool] | str | None] = []
        self.key = ECKey.generate_key("P-256", {"kid": "first"})
        self.state = _State()
        super().__init__(folder, self._application())

    @property
    def url(self) -> str:
        """The issuer's name."""
        return f"https://localhost:{self.port}"

    def key_set(self) -> str:
        """Return its public keys (RFC 7517)."""
        row = {**self.key.as_dict(private=False), "use": "sig", "alg": "ES256"}
        return json.dumps({"keys": [row]})

    def revoke(self, user: str) -> None:
        """End every sign-in of a user, as an administrator does."""
        known = self.state.refresh_tokens
        for token in [text for text, found in known.items() if found.user == user]:
            del known[token]

    def _application(self) -> flask.Flask:
        app, client = flask.Flask("oidc"), _Client()
        app.before_request(self._note)
        server = AuthorizationServer(
            app,
            query_client=lambda name: client if name == CLIENT_ID else None,
            save_token=self._save,
        )
        server.register_token_generator("default", self.issue)
        server.register_grant(_code_grant(self.state), [CodeChallenge(required=True)])
        server.register_grant(_refresh_grant(self.state))
        server.register_grant(_device_grant(self))
        server.register_endpoint(_device_endpoint(self))
        server.register_endpoint(_revocation(self.state))
        server.register_extension(_NamedIssuer(self))
        app.add_url_rule(
            "/.well-known/openid-configuration", view_func=self._metadata_view
        )

        @app.get("/authorize")
        def authorize() -> flask.Response:
            """Sign in the user of the hint at once: the test is the user."""
            user = flask.request.args.get("login_hint") or "olga"
            if user == "nobody":
                user = ""
            grant = server.get_consent_grant(end_user=user or None)
            made: flask.Response = server.create_authorization_response(
                grant_user=user or None, grant=grant
            )
            return made

        @app.post("/token")
        def token() -> flask.Response:
            made: flask.Response = server.create_token_response()
            return made

        @app.post("/device")
        def device() -> flask.Response:
            made: flask.Response = server.create_endpoint_response(
                DeviceAuthorizationEndpoint.ENDPOINT_NAME
            )
            return made

        @app.post("/revoke")
        def revoke() -> flask.Response:
            made: flask.Response = server.create_endpoint_response(
                RevocationEndpoint.ENDPOINT_NAME
            )
            return made

        return app

    def _note(self) -> None:
        self.requests.append(f"{flask.request.method} {flask.request.path}")

    def _metadata_view(self) -> flask.Response:
        return flask.jsonify(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "device_authorization_endpoint": f"{self.url}/device",
                "revocation_endpoint": f"{self.url}/revoke",
                "scopes_supported": ["openid", "offline_access"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
                **self.metadata,
            }
        )

    def issue(self, user: str, scope: str = "", **_: Any) -> dict[str, Any]:
        """Return new tokens of a user."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": user,
            "groups": self.groups[user],
            "iat": now,
            "exp": now + LIFETIME,
            "jti": secrets.token_hex(16),
        }
        header = {"alg": "ES256", "typ": "at+jwt", "kid": "first"}
        return {
            "token_type": "Bearer",
            "access_token": jwt.encode(header, claims, self.key),
            "expires_in": LIFETIME,
            "scope": scope,
            "refresh_token": secrets.token_urlsafe(32),
        }

    def _save(self, token: dict[str, Any], request: Any) -> None:
        known = _Refresh(request.user, token["scope"])
        self.state.refresh_tokens[token["refresh_token"]] = known


class _NamedIssuer(IssuerParameter):  # type: ignore[misc]
    def __init__(self, provider: OIDCProvider) -> None:
        self._provider = provider

    def get_issuer(self) -> str:
        return self._provider.url


def _code_grant(state: _State) -> type:
    class Grant(AuthorizationCodeGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

        def save_authorization_code(self, code: str, request: Any) -> None:
            data = request.payload.data
            state.codes[code] = _Code(
                user=request.user,
                scope=request.payload.scope,
                redirect_uri=request.payload.redirect_uri,
                code_challenge=data["code_challenge"],
                code_challenge_method=data["code_challenge_method"],
            )

        def query_authorization_code(self, code: str, client: Any) -> _Code | None:
            return state.codes.get(code)

        def delete_authorization_code(self, authorization_code: _Code) -> None:
            for code, known in list(state.codes.items()):
                if known is authorization_code:
                    del state.codes[code]

        def authenticate_user(self, authorization_code: _Code) -> str:
            return authorization_code.user

    return Grant


def _refresh_grant(state: _State) -> type:
    class Grant(RefreshTokenGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ("none",)
        INCLUDE_NEW_REFRESH_TOKEN = True

        def authenticate_refresh_token(self, refresh_token: str) -> _Refresh | None:
            return state.refresh_tokens.get(refresh_token)

        def authenticate_user(self, refresh_token: _Refresh) -> str:
            return refresh_token.user

        def revoke_old_credential(self, refresh_token: _Refresh) -> None:
            for text, known in list(state.refresh_tokens.items()):
                if known is refresh_token:
                    del state.refresh_tokens[text]

    return Grant


def _device_grant(provider: OIDCProvider) -> type:
    class Grant(DeviceCodeGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

        def query_device_credential(self, device_code: str) -> Any:
            return DeviceCredentialDict(provider.state.devices[device_code])

        def query_user_grant(self, user_code: str) -> Any:
            answer = provider.answers.pop(0)
            self.is_slow = isinstance(answer, str)
            return None if self.is_slow else answer

        def should_slow_down(self, credential: Any) -> bool:
            return self.is_slow

    return Grant


def _device_endpoint(provider: OIDCProvider) -> type:
    class Endpoint(DeviceAuthorizationEndpoint):  # type: ignore[misc]
        CLIENT_AUTH_METHODS = ("none",)
        INTERVAL = 0

        def get_verification_uri(self) -> str:
            return f"{provider.url}/activate"

        def save_device_credential(
            self, client_id: str, scope: str, data: dict[str, Any]
        ) -> None:
            provider.state.devices[data["device_code"]] = {
                **data,
                "client_id": client_id,
                "scope": scope,
                "expires_at": time.time() + data["expires_in"],
            }

    return Endpoint


def _revocation(state: _State) -> type:
    class Endpoint(RevocationEndpoint):  # type: ignore[misc]
        CLIENT_AUTH_METHODS = ("none",)

        def query_token(self, token_string: str, token_type_hint: str) -> Any:
            return state.refresh_tokens.get(token_string)

        def revoke_token(self, token: _Refresh, request: Any) -> None:
            for text, known in list(state.refresh_tokens.items()):
                if known is token:
                    del state.refresh_tokens[text]

    return Endpoint
