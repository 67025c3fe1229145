# SPDX-License-Identifier: MIT
"""
OpenID Connect client in a front end: redirects and code exchange.

It trusts nothing from the provider; the vault verifies the result.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from yarl import URL

from hsm_core.errors import HSMError
from hsm_core.model import Record
from hsm_core.secret_input import read_secret_text
from hsm_core.wire import scan_json
from hsm_server.config.settings import MAX_TOKEN_BYTES, OIDCSettings
from hsm_server.identity.fetch import (
    Fetched,
    FetchError,
    fetch,
    metadata_url,
    read_metadata,
    trust_context,
)
from hsm_server.identity.oidc_config import is_https

_METADATA_SECONDS: Final = 3600.0
"""Lifetime of cached provider metadata."""

_RETRY_SECONDS: Final = 5.0
"""
Pause after a failed fetch of the metadata, so that sign-ins do not queue up.
"""

_ANSWER_SECONDS: Final = 10.0
_MOST_BYTES: Final = 256 * 1024

_URL = Annotated[str, Meta(min_length=1, max_length=2048)]


class ProviderError(Exception):
    """The provider did not respond correctly; the text contains no secret."""


class SignInState(Record, frozen=True, kw_only=True):
    """
    State of a sign-in, kept in the browser.

    Attributes:
        state: Returned by the provider.
        nonce: Expected in the ID token.
        verifier: PKCE code verifier (RFC 7636).
        onward: Path of this server to open after the sign-in.
    """

    state: str
    nonce: str
    verifier: str
    onward: str = ""


class _Metadata(msgspec.Struct, frozen=True, kw_only=True):
    authorization_endpoint: _URL
    token_endpoint: _URL
    authorization_response_iss_parameter_supported: bool = False
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class Provider:
    """
    Client of one OpenID Connect provider.

    Args:
        settings: As configured.

        now: Seconds since 1970; never goes back.

        answer_seconds: Time limit of a response.
    """

    def __init__(
        self,
        settings: OIDCSettings,
        now: Callable[[], float] = time.monotonic,
        answer_seconds: float = _ANSWER_SECONDS,
    ) -> None:
        self._settings = settings
        self._now = now
        self._answer_seconds = answer_seconds
        self._metadata: _Metadata | None = None
        self._read_at = 0.0
        self._trouble = ""
        self._troubled_at = 0.0
        self._reading = asyncio.Lock()
        # Trusts no CA until certificates are read.
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    @property
    def title(self) -> str:
        """Name on the sign-in page."""
        return self._settings.title

    async def begin(self, onward: str) -> tuple[str, SignInState]:
        """
        Return the URL of the provider and the state for the browser.

        Args:
            onward: Path of this server to open after the sign-in.

        Raises:
            ProviderError: The provider metadata is not available.
        """
        # Most servers have no provider, and need none of its 40 modules.
        from authlib.oauth2.client import OAuth2Client

        metadata = await self._known_metadata()
        started = SignInState(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            onward=onward,
        )
        client = OAuth2Client(
            None,
            self._settings.client_id,
            self._secret(),
            scope=" ".join(self._settings.scopes),
            redirect_uri=self._settings.redirect_uri,
            code_challenge_method="S256",
        )
        url, _ = client.create_authorization_url(
            metadata.authorization_endpoint,
            state=started.state,
            code_verifier=started.verifier,
            nonce=started.nonce,
        )
        return str(url), started

    async def check_sender(self, issuer: str | None) -> None:
        """
        Check that a response comes from this provider (RFC 9207).

        Args:
            issuer: ``iss`` of the response, if it has one.

        Raises:
            ProviderError: It is another provider's, or lacks a required ``iss``.
        """
        metadata = await self._known_metadata()
        if issuer is None:
            if metadata.authorization_response_iss_parameter_supported:
                raise ProviderError("The response has no issuer (iss).")
        elif issuer != self._settings.issuer:
            raise ProviderError("The response is from another issuer.")

    async def exchange(self, code: str, started: SignInState) -> str:
        """
        Exchange an authorization code for an ID token, and return it unverified.

        Raises:
            ProviderError: The provider returned none.
        """
        from authlib.oauth2.auth import ClientAuth
        from authlib.oauth2.client import DEFAULT_HEADERS
        from authlib.oauth2.rfc6749.parameters import prepare_token_request

        metadata = await self._known_metadata()
        form = prepare_token_request(
            "authorization_code",
            redirect_uri=self._settings.redirect_uri,
            code=code,
            code_verifier=started.verifier,
        )
        auth = ClientAuth(
            self._settings.client_id, self._secret(), self._method(metadata)
        )
        try:
            url, headers, form = auth.prepare(
                "POST", metadata.token_endpoint, dict(DEFAULT_HEADERS), form
            )
        except ValueError:
            raise ProviderError("The client secret must be Latin-1 text.") from None
        response = await self._fetch(url, headers, form.encode())
        try:
            token = scan_json(response.body)
        except HSMError:
            token = None
        if not isinstance(token, dict):
            raise ProviderError("The response of the provider is malformed.")
        if "error" in token or response.status != HTTPStatus.OK:
            raise ProviderError("The provider rejected the authorization code.")
        found = token.get("id_token")
        if not isinstance(found, str) or not 1 <= len(found) <= MAX_TOKEN_BYTES:
            raise ProviderError("The provider returned no ID token.")
        return found

    def _method(self, metadata: _Metadata) -> str:
        """Return the client authentication method of this server."""
        if self._settings.client_secret_file is None:
            return "none"
        known = metadata.token_endpoint_auth_methods_supported
        is_basic = "client_secret_basic" in known or "client_secret_post" not in known
        return "client_secret_basic" if is_basic else "client_secret_post"

    async def _known_metadata(self) -> _Metadata:
        async with self._reading:
            now = self._now()
            if self._metadata is not None and now - self._read_at < _METADATA_SECONDS:
                return self._metadata
            if self._trouble and now - self._troubled_at < _RETRY_SECONDS:
                raise ProviderError(self._trouble)
            try:
                self._metadata = await self._read_metadata()
            except ProviderError as error:
                self._trouble, self._troubled_at = str(error), self._now()
                raise
            self._trouble, self._read_at = "", self._now()
            return self._metadata

    async def _read_metadata(self) -> _Metadata:
        """Fetch the provider metadata (OpenID Connect Discovery 1.0, section 4)."""
        issuer = self._settings.issuer
        try:
            # Reading the system's CA certificates takes long.
            self._context = await asyncio.to_thread(
                trust_context, self._settings.ca_bundle
            )
        except FetchError:
            raise ProviderError(
                "Cannot read the CA certificates of the provider (ca_bundle)."
            ) from None
        response = await self._fetch(
            str(metadata_url(issuer)), {"Accept": "application/json"}
        )
        try:
            metadata = msgspec.convert(read_metadata(response, issuer), _Metadata)
        except (FetchError, msgspec.ValidationError) as error:
            reason = error if isinstance(error, FetchError) else "a field is not valid."
            raise ProviderError(
                f"The provider metadata is not available: {reason}"
            ) from None
        for endpoint in (metadata.authorization_endpoint, metadata.token_endpoint):
            if not is_https(endpoint):
                raise ProviderError(
                    "An endpoint in the provider metadata is not an https URL."
                )
        return metadata

    def _secret(self) -> str | None:
        """
        Return the client secret; its file may be replaced at any time.

        Raises:
            ProviderError: It can't be read.
        """
        path = self._settings.client_secret_file
        if path is None:
            return None
        try:
            return read_secret_text(f"@{path}", field="client_secret_file").strip()
        except HSMError:
            raise ProviderError(
                "Cannot read the client secret (client_secret_file)."
            ) from None

    async def _fetch(
        self, url: str, headers: Mapping[str, str], form: bytes | None = None
    ) -> Fetched:
        try:
            return await fetch(
                URL(url),
                self._context,
                headers=headers,
                seconds=self._answer_seconds,
                most_bytes=_MOST_BYTES,
                form=form,
            )
        except FetchError as error:
            raise ProviderError(f"Cannot reach the provider: {error}") from None
