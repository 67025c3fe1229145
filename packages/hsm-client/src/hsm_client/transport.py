# SPDX-License-Identifier: MIT
"""HTTPS transport: TLS 1.3, and one attempt of a request."""

from __future__ import annotations

import re
import ssl
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPResponse, RemoteDisconnected
from io import BytesIO
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from hsm_client.client_certificates import load_client_certificate
from hsm_client.failures import Failures, client_closed, reason, too_long
from hsm_client.https import (
    HTTPS_ERRORS,
    AmbiguousLengthError,
    ClosedPoolError,
    ConnectError,
    ConnectionPool,
    read_pieces,
    send,
)
from hsm_client.messages import EVENTS, Answer, Request
from hsm_core.errors import ConfigurationError, TransportError
from hsm_core.rest import RESULT_HEADER, REVISION_HEADER, parse_revision


def open_tls_context(
    *,
    ca_bundle: Path | None,
    client_cert: Path | None,
    client_key: Path | None,
    client_key_password: str,
    insecure: bool,
) -> ssl.SSLContext:
    """
    Return a context for TLS 1.3.

    Args:
        ca_bundle: PEM file of trusted CA certificates; None means the system's.

        client_cert: PEM file with the client certificate chain, PKCS#12 file, or None.

        client_key: PEM file with its key; None means it is in *client_cert*.

        client_key_password: Password of the key; empty for none.

        insecure: Skip verification of the server's certificate.

    Raises:
        ConfigurationError: A file can't be read, is invalid, or the password is wrong.
        UnsafeFileModeError: Other users may read the key file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        _load_authorities(context, ca_bundle)
    if client_cert is not None:
        load_client_certificate(context, client_cert, client_key, client_key_password)
    elif client_key is not None:
        raise ConfigurationError(
            "client_key requires client_cert (--client-cert).", field="client_key"
        )
    return context


def _load_authorities(context: ssl.SSLContext, ca_bundle: Path | None) -> None:
    if ca_bundle is None:
        context.load_default_certs()
        return
    try:
        context.load_verify_locations(cafile=ca_bundle)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"Can't read the CA bundle {ca_bundle}: {reason(error)}.", field="ca_bundle"
        ) from None


_LABEL: Final = "[A-Za-z0-9_-]{1,63}"
_HOST: Final = re.compile(
    rf"{_LABEL}(?:\.{_LABEL})*\.?|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?"
)
"""Name or IPv4 address, or IPv6 address with or without a zone."""

CONNECTIONS: Final = 64
"""Connections to one server that are kept and used again."""

_LONGEST_PAUSE_SECONDS: Final = 30.0
_LONGEST_TIMEOUT_SECONDS: Final = 3600
LONGEST_SILENCE_SECONDS: Final = 45.0
"""Streams are silent for at most 15 seconds; longer silence is a lost connection."""


class Transport:
    """
    Connection pool to one server. Thread-safe.

    It does not follow redirects, use proxies of the environment, or decompress
    responses.

    Args:
        endpoint: ``https://HOST[:PORT][/PREFIX]``.

        context: From `open_tls_context`.

        timeout_seconds: Time limit for connecting, for the first byte of the response,
            and for the rest of it.

        max_answer_bytes: Maximum length of a response.

    Raises:
        ConfigurationError: The endpoint is invalid, or the time-out is not between 0
            and 3600 seconds.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        context: ssl.SSLContext,
        timeout_seconds: float,
        max_answer_bytes: int,
    ) -> None:
        host, port, self._prefix = parse_endpoint(endpoint)
        self._failed = Failures(f"{host}:{port}", timeout_seconds)
        self._timeout_seconds = checked_timeout(timeout_seconds)
        self._max_answer_bytes = max_answer_bytes
        self._pool = ConnectionPool(host, port, context, size=CONNECTIONS)

    def send(self, request: Request, headers: dict[str, str]) -> Answer:
        """
        Send one request and read its response.

        Args:
            request: The request.

            headers: Additional headers, such as the credential.

        Raises:
            TransportError: No response, or an invalid one; ``facts["reason"]`` is
                ``connect``, ``certificate``, ``tls``, ``lost``, ``answer`` or
                ``closed``.
        """
        with self._failures():
            return self._read(*self._open(request, headers, self._timeout_seconds))

    def stream(
        self, request: Request, headers: dict[str, str]
    ) -> Answer | Generator[bytes, None, None]:
        """
        Send one request, and return the pieces of an endless response.

        Args:
            request: The request.

            headers: See `send`.

        Returns:
            Pieces as they arrive, which may raise `TransportError`; closing them closes
            the connection. A response that is not an event stream is returned whole.

        Raises:
            TransportError: See `send`.
        """
        with self._failures():
            longest = max(self._timeout_seconds, LONGEST_SILENCE_SECONDS)
            connection, response = self._open(request, headers, longest)
            kind = response.getheader("Content-Type", "").partition(";")[0]
            if response.status != HTTPStatus.OK or kind.strip().lower() != EVENTS:
                return self._read(connection, response)
        return self._pieces(connection, response)

    def _pieces(
        self, connection: HTTPConnection, response: HTTPResponse
    ) -> Generator[bytes, None, None]:
        try:
            with self._failures():
                yield from read_pieces(response)
        finally:
            response.close()
            connection.close()

    def _open(
        self, request: Request, headers: dict[str, str], read_seconds: float
    ) -> tuple[HTTPConnection, HTTPResponse]:
        connection = self._pool.take(self._timeout_seconds)
        try:
            response = send(
                connection,
                request.method,
                self._prefix + request.target,
                body=request.body,
                headers={**request.headers, **headers},
                timeout_seconds=read_seconds,
            )
        except BaseException:
            connection.close()
            raise
        return connection, response

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Convert errors of the connection into `TransportError`."""
        try:
            yield
        except ClosedPoolError:
            raise client_closed() from None
        except HTTPS_ERRORS as error:
            raise self._failure(error) from None

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def _read(self, connection: HTTPConnection, response: HTTPResponse) -> Answer:
        try:
            body = self._read_body(response)
        except BaseException:
            response.close()
            connection.close()
            raise
        self._pool.give_back(connection)
        return Answer(
            status=response.status,
            content_type=response.getheader("Content-Type", ""),
            body=body,
            result_fields=response.getheader(RESULT_HEADER, ""),
            retry_after_seconds=parse_retry_after(response.getheader("Retry-After")),
            revision=parse_revision(response.getheader(REVISION_HEADER, "")) or 0,
        )

    def _read_body(self, response: HTTPResponse) -> bytes:
        body = BytesIO()
        try:
            for piece in read_pieces(response, self._timeout_seconds):
                body.write(piece)
                if body.tell() > self._max_answer_bytes:
                    raise too_long(self._max_answer_bytes)
        except TimeoutError:
            raise self._failed.incomplete() from None
        return body.getvalue()

    def _failure(self, error: Exception) -> TransportError:
        match error:
            case ConnectError(__cause__=TimeoutError()):
                return self._failed.slow_to_accept()
            case ConnectError():
                return self._failed.refused(error)
            case ssl.SSLError():
                return self._failed.tls(error)
            case TimeoutError():
                return self._failed.silent()
            case AmbiguousLengthError():
                return self._failed.ambiguous()
            case RemoteDisconnected():
                return self._failed.closed()
            case _:
                return self._failed.lost(error)


def checked_timeout(seconds: float) -> float:
    """
    Return a time limit.

    Raises:
        ConfigurationError: It is not between 0 and 3600 seconds.
    """
    if not 0 < seconds <= _LONGEST_TIMEOUT_SECONDS:
        raise ConfigurationError(
            "timeout_seconds must be more than 0 and at most "
            f"{_LONGEST_TIMEOUT_SECONDS} seconds.",
            field="timeout_seconds",
        )
    return seconds


def parse_endpoint(endpoint: str) -> tuple[str, int, str]:
    """
    Return host, port and path of an endpoint.

    Raises:
        ConfigurationError: It is invalid.
    """
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
        host_is_ascii = host is not None and host.isascii()
    except ValueError:
        host, port, host_is_ascii, parts = None, None, False, urlsplit("")
    if (
        not host
        or not host_is_ascii
        or parts.scheme != "https"
        or parts.username is not None
        or parts.query
        or parts.fragment
    ):
        raise ConfigurationError(
            "endpoint must be https://HOST[:PORT][/PREFIX], without user, query or "
            "fragment.",
            field="endpoint",
        )
    if not _HOST.fullmatch(host):
        raise _invalid_host(host)
    return host, port or 443, parts.path.rstrip("/")


def _invalid_host(host: str) -> ConfigurationError:
    return ConfigurationError(
        f"endpoint has an invalid host name: {host!r}.", field="endpoint"
    )


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, bounded; None if it has none."""
    if value is None or not value.isascii() or not value.isdigit():
        return None
    return min(float(value[:6]), _LONGEST_PAUSE_SECONDS)
