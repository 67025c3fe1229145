# SPDX-License-Identifier: MIT
"""
Sign-in at an OpenID Connect provider: in a browser, or with a code on another device.

The ID token is ignored: the server tells who signed in.
"""

from __future__ import annotations

import hmac
import secrets
import sys
import threading
import time
import webbrowser
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

# A library, because providers are strict about the encoding of these parameters.
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from hsm_cli.io.output import print_note
from hsm_client.credentials import StoredSecrets
from hsm_client.oidc import Provider
from hsm_client.profiles import Profile
from hsm_core.errors import AuthenticationError, ConfigurationError, TransportError

_SECONDS: Final = 300.0
"""Maximum time for a sign-in in the browser."""

_SOCKET_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.05
_PAGE: Final = (
    b"<!doctype html><title>FerroHSM</title><p>Return to the terminal. You can close "
    b"this window.\n"
)
_DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_OFFLINE: Final = "offline_access"


def open_provider(profile: Profile) -> Provider:
    """Return the provider of a profile."""
    return Provider(profile.issuer, profile.client_id, profile.issuer_ca_bundle)


def default_scopes(provider: Provider) -> tuple[str, ...]:
    """
    Return the scopes to request: for a refresh token too, if the provider has that one.

    Raises:
        TransportError: The metadata of the provider can't be read.
    """
    has_offline = _OFFLINE in provider.metadata().scopes_supported
    return ("openid", _OFFLINE) if has_offline else ("openid",)


def sign_in_by_browser(
    provider: Provider, profile: Profile, *, port: int
) -> StoredSecrets:
    """
    Sign in with a browser on this machine, and return the tokens.

    Args:
        provider: The provider.

        profile: Scopes and audience.

        port: Port on 127.0.0.1 for the answer; 0 means any.

    Raises:
        AuthenticationError: The provider refused, or nobody signed in within 5 minutes.
        ConfigurationError: The port can't be used.
        TransportError: The provider can't be reached, or its answer is invalid.

    Standard:
        RFC 8252, section 7.3 (loopback); RFC 7636 (PKCE); RFC 9207 (``iss``).
    """
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(32)
    with _Listener(port) as listener:
        url = prepare_grant_uri(
            provider.metadata().authorization_endpoint,
            profile.client_id,
            "code",
            redirect_uri=listener.redirect_uri,
            scope=" ".join(profile.scopes),
            state=state,
            code_challenge=create_s256_code_challenge(verifier),
            code_challenge_method="S256",
            **_audience(profile),
        )
        print_note("opening a browser to sign in. If none opens, open this URL:")
        _write(url)
        webbrowser.open(url)
        answer = listener.wait(state)
    code = _code_of(answer, provider)
    return provider.request_tokens(
        {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": listener.redirect_uri,
            "code_verifier": verifier,
        }
    )


def sign_in_by_device(
    provider: Provider,
    profile: Profile,
    *,
    pause: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> StoredSecrets:
    """
    Sign in with a code that the user types on another device, and return the tokens.

    Args:
        provider: The provider.

        profile: Scopes and audience.

        pause: Sleeps for a number of seconds.

        now: Monotonic clock, in seconds.

    Raises:
        AuthenticationError: The provider refused, or the code expired.
        ConfigurationError: The provider does not support it.
        TransportError: The provider can't be reached, or its answer is invalid.

    Standard:
        RFC 8628.
    """
    form = {"scope": " ".join(profile.scopes), **_audience(profile)}
    device = provider.begin_device(form)
    print_note(f"open {device.verification_uri} and enter the code {device.user_code}")
    if device.verification_uri_complete:
        print_note(f"or open {device.verification_uri_complete}")
    interval, end = device.interval, now() + device.expires_in
    grant = {"grant_type": _DEVICE_GRANT, "device_code": device.device_code}
    while now() < end:
        pause(interval)
        try:
            return provider.request_tokens(grant)
        except AuthenticationError as error:
            reason = error.facts.get("reason")
            if reason == "slow_down":
                interval += 5
            elif reason != "authorization_pending":
                raise
    raise AuthenticationError("The code expired before the sign-in. Try again.")


def _audience(profile: Profile) -> dict[str, str]:
    return {"audience": profile.audience} if profile.audience else {}


def _code_of(answer: dict[str, str], provider: Provider) -> str:
    """Return the authorization code of an answer with the right state."""
    is_named = provider.metadata().authorization_response_iss_parameter_supported
    issuer = answer.get("iss")
    if issuer != provider.issuer and (issuer is not None or is_named):
        raise AuthenticationError("The sign-in response is from another provider.")
    if "code" not in answer:
        word = answer.get("error", "")
        known = word if word.replace("_", "").isalpha() and len(word) <= 64 else "?"
        raise AuthenticationError(f"The provider did not sign you in ({known}).")
    return answer["code"]


def _write(url: str) -> None:
    """Print a URL alone on a line, so that it can be copied."""
    if sys.stderr is not None:
        sys.stderr.write(f"{url}\n")
        sys.stderr.flush()


class _Listener:
    """Listener on loopback for one answer of the browser."""

    def __init__(self, port: int) -> None:
        try:
            self._server = _Server(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise ConfigurationError(
                f"Can't listen on 127.0.0.1:{port}: {error.strerror}.",
                field="redirect_port",
            ) from None
        self.redirect_uri = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> _Listener:
        return self

    def __exit__(self, *error: object) -> None:
        self._server.server_close()

    def wait(self, state: str) -> dict[str, str]:
        """
        Return the parameters of the answer with this state.

        Raises:
            AuthenticationError: There is none within 5 minutes.
        """
        server = self._server
        server.state = state
        serve = partial(server.serve_forever, poll_interval=_POLL_SECONDS)
        threading.Thread(target=serve, daemon=True).start()
        try:
            if not server.is_answered.wait(_SECONDS):
                raise AuthenticationError("No sign-in within 5 minutes. Try again.")
        finally:
            server.shutdown()
        return server.answer


class _Server(ThreadingHTTPServer):
    """Server with a thread for each connection: a silent one delays no other."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.state = ""
        self.answer: dict[str, str] = {}
        self.is_answered = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a browser that disconnects."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _SOCKET_SECONDS
    server: _Server

    def do_GET(self) -> None:
        """Take the answer; anything else, such as an icon, is not found."""
        parts = urlsplit(self.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        given = {name: values[0] for name, values in query.items()}
        is_once = all(len(values) == 1 for values in query.values())
        state = given.get("state", "").encode()
        is_ours = hmac.compare_digest(state, self.server.state.encode())
        if parts.path != "/" or not is_once or not is_ours:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.server.answer = given
        try:
            self._send_page()
        finally:
            # Afterwards this process may end.
            self.server.is_answered.set()

    def _send_page(self) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Security-Policy", "default-src 'none'")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Content-Length", str(len(_PAGE)))
        self.end_headers()
        self.wfile.write(_PAGE)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the path holds the code."""


def revoke(provider: Provider, token: str) -> str:
    """Revoke a refresh token; return a note if that was not possible, or nothing."""
    try:
        if provider.revoke(token):
            return ""
    except (AuthenticationError, TransportError) as error:
        return f"the provider did not revoke the refresh token: {error}"
    return "the provider can't revoke refresh tokens; this one expires by itself"
