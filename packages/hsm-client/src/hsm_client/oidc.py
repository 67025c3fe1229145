# SPDX-License-Identifier: MIT
"""
OpenID Connect provider: metadata, token requests and revocation, over HTTPS.

Access tokens are opaque here: the server verifies them.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Mapping
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPResponse
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec
from msgspec import Meta

from hsm_client.credentials import StoredSecrets
from hsm_client.failures import reason
from hsm_client.https import HTTPS_ERRORS, connect, read_pieces, send
from hsm_core import wire
from hsm_core.errors import (
    AuthenticationError,
    ConfigurationError,
    InvalidInputError,
    TransportError,
)

_SECONDS: Final = 10.0
_MAX_BYTES: Final = 256 * 1024
_ERROR: Final = re.compile(r"[a-z_]{1,64}")
_URL: Final = re.compile(r"[!-~]{1,4096}")
_USUAL_LIFETIME: Final = 300
"""Lifetime of a token in seconds, if the provider does not tell it."""

_LONGEST_LIFETIME: Final = 366 * 86400

T = TypeVar("T")
_Secret = Annotated[str, Meta(min_length=1, max_length=64 * 1024)]


class ProviderMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """
    Metadata of a provider.

    Standard:
        OpenID Connect Discovery 1.0, section 3; RFC 8628, section 4; RFC 8414.
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    device_authorization_endpoint: str = ""
    revocation_endpoint: str = ""
    scopes_supported: tuple[str, ...] = ()
    authorization_response_iss_parameter_supported: bool = False


class DeviceCode(msgspec.Struct, frozen=True, kw_only=True):
    """
    Pending sign-in on another device.

    Standard:
        RFC 8628, section 3.2.
    """

    device_code: _Secret
    user_code: Annotated[str, Meta(min_length=1, max_length=64)]
    verification_uri: str
    verification_uri_complete: str = ""
    expires_in: Annotated[float, Meta(gt=0)]
    interval: Annotated[float, Meta(ge=0, le=300)] = 5

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class _Tokens(msgspec.Struct, frozen=True, kw_only=True):
    access_token: _Secret
    token_type: str
    expires_in: Annotated[float, Meta(ge=0)] = _USUAL_LIFETIME
    refresh_token: str | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Provider:
    """
    Public client of a provider: it has no client secret.

    Args:
        issuer: HTTPS URL.

        client_id: ID of this client.

        ca_bundle: PEM file of trusted CA certificates; None means the system's.

    Raises:
        ConfigurationError: The issuer is no HTTPS URL, or a file can't be read.
    """

    def __init__(self, issuer: str, client_id: str, ca_bundle: Path | None) -> None:
        if not _is_https(issuer):
            raise ConfigurationError(
                f"issuer must be an https URL, got {issuer!r}.", field="issuer"
            )
        self.issuer = issuer
        self.client_id = client_id
        try:
            self._context = ssl.create_default_context(cafile=ca_bundle)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"Can't read the CA bundle {ca_bundle}: {reason(error)}.",
                field="issuer_ca_bundle",
            ) from None
        self._context.set_alpn_protocols(["http/1.1"])
        self._metadata: ProviderMetadata | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.issuer}>"

    def metadata(self) -> ProviderMetadata:
        """
        Return the metadata of the provider.

        Raises:
            TransportError: It can't be read, or is of another issuer.
        """
        if self._metadata is None:
            url = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
            status, tree = self._request("GET", url, None)
            if status != HTTPStatus.OK:
                raise self._invalid(f"its metadata has status {status}")
            found = self._convert(tree, ProviderMetadata)
            if found.issuer != self.issuer:
                raise self._invalid("its metadata names another issuer")
            for endpoint in (
                found.authorization_endpoint,
                found.token_endpoint,
                found.device_authorization_endpoint or self.issuer,
                found.revocation_endpoint or self.issuer,
            ):
                if not _is_https(endpoint):
                    raise self._invalid("an endpoint is not an https URL")
            self._metadata = found
        return self._metadata

    def request_tokens(
        self, form: Mapping[str, str], *, now: float | None = None
    ) -> StoredSecrets:
        """
        Request tokens, and return them.

        Args:
            form: Grant type and its parameters, without the client ID.

            now: Seconds since 1970; None means the current time.

        Raises:
            AuthenticationError: The provider refused; ``facts["reason"]`` is its code.
            TransportError: It can't be reached, or its response is invalid.

        Standard:
            RFC 6749, sections 5 and 6.
        """
        endpoint = self.metadata().token_endpoint
        at = time.time() if now is None else now
        tokens = self._convert(self._post(endpoint, form), _Tokens)
        if tokens.token_type.lower() != "bearer":
            raise self._invalid("the token is not a bearer token")
        return StoredSecrets(
            token=tokens.access_token,
            expires_at=int(at + min(tokens.expires_in, _LONGEST_LIFETIME)),
            refresh_token=tokens.refresh_token or "",
        )

    def refresh(
        self, secrets: StoredSecrets, *, now: float | None = None
    ) -> StoredSecrets:
        """
        Return new tokens for a refresh token; see `request_tokens`.

        Standard:
            RFC 6749, section 6: without a new refresh token, the old one stays valid.
        """
        found = self.request_tokens(
            {"grant_type": "refresh_token", "refresh_token": secrets.refresh_token},
            now=now,
        )
        if found.refresh_token:
            return found
        return msgspec.structs.replace(found, refresh_token=secrets.refresh_token)

    def begin_device(self, form: Mapping[str, str]) -> DeviceCode:
        """
        Begin a sign-in on another device.

        Args:
            form: Scope and audience.

        Raises:
            ConfigurationError: The provider does not support it.
            AuthenticationError: It refused.
            TransportError: It can't be reached, or its response is invalid.
        """
        endpoint = self.metadata().device_authorization_endpoint
        if not endpoint:
            raise ConfigurationError(
                f"The provider {self.issuer} does not support device codes. Sign in "
                "without --device.",
                field="issuer",
            )
        return self._convert(self._post(endpoint, form), DeviceCode)

    def revoke(self, token: str) -> bool:
        """
        Revoke a refresh token, and return whether the provider supports it.

        Raises:
            AuthenticationError: The provider refused.
            TransportError: It can't be reached, or its response is invalid.

        Standard:
            RFC 7009.
        """
        endpoint = self.metadata().revocation_endpoint
        if endpoint:
            self._post(endpoint, {"token": token, "token_type_hint": "refresh_token"})
        return bool(endpoint)

    def _post(self, url: str, form: Mapping[str, str]) -> Any:
        body = urlencode({**form, "client_id": self.client_id})
        status, tree = self._request("POST", url, body)
        code = tree.get("error") if isinstance(tree, dict) else None
        if status != HTTPStatus.OK or code:
            known = isinstance(code, str) and _ERROR.fullmatch(code)
            word = str(code) if known else f"status {status}"
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise self._invalid(word)
            raise AuthenticationError(
                f"The provider {self.issuer} refused the request ({word}).",
                reason=word,
            )
        return tree

    def _request(self, method: str, url: str, body: str | None) -> tuple[int, Any]:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            status, data = self._exchange(method, url, body, headers)
        except HTTPS_ERRORS as error:
            raise TransportError(
                f"Can't reach the provider {self.issuer}: {reason(error)}.",
                reason="connect",
            ) from None
        if not data:
            return status, None
        try:
            return status, wire.scan_json(data)
        except InvalidInputError:
            return status, None

    def _exchange(
        self, method: str, url: str, body: str | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Send one request on a connection of its own, and return status and body."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        with closing(connect(host, port, self._context, _SECONDS)) as connection:
            response = send(
                connection,
                method,
                target,
                body=None if body is None else body.encode(),
                headers=headers,
                timeout_seconds=_SECONDS,
            )
            with response:
                return response.status, self._read(response)

    def _read(self, response: HTTPResponse) -> bytes:
        data, deadline = b"", time.monotonic() + _SECONDS
        for piece in read_pieces(response):
            data += piece
            if len(data) > _MAX_BYTES or time.monotonic() > deadline:
                raise self._invalid("it is too long or too slow")
        return data

    def _convert(self, tree: Any, cls: type[T]) -> T:
        try:
            return msgspec.convert(tree, cls)
        except msgspec.ValidationError as error:
            # The error names the place and the type, not the value.
            raise self._invalid(str(error)) from None

    def _invalid(self, why: str) -> TransportError:
        return TransportError(
            f"The response of the provider {self.issuer} is invalid: {why}.",
            reason="answer",
        )


def _is_https(url: str) -> bool:
    # A URL is shown to the user, and urlsplit drops some control characters.
    if not _URL.fullmatch(url):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.scheme == "https" and parts.hostname and not parts.username)
