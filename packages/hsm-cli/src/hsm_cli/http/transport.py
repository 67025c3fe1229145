# SPDX-License-Identifier: MIT
"""
One HTTPS attempt: a request goes out, an answer comes back, or it is said what failed.

Whether a request may have reached the server decides what may be done next, so every
failure says so in ``facts["reason"]``: only ``lost`` and ``answer`` mean that it may.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import RemoteDisconnected
from typing import Final
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from hsm_cli.http.messages import EVENTS, Answer, Request
from hsm_cli.http.tls import innermost, reason, tls_words
from hsm_core.errors import ConfigurationError, TransportError

_CHUNK_BYTES: Final = 256 * 1024
_LONGEST_PAUSE_SECONDS: Final = 30.0
_LONGEST_TIMEOUT_SECONDS: Final = 3600
_LONGEST_SILENCE_SECONDS: Final = 45.0
"""A stream is silent for 15 seconds at most; more than that is a lost connection."""


class Transport:
    """
    A few kept connections to one server. Safe for many threads.

    Redirects are never followed, proxies of the environment are not used, and answers
    are not decompressed.

    Args:
        endpoint: ``https://HOST[:PORT][/PREFIX]``.

        context: From `open_tls_context`.

        timeout_seconds: Longest time for connecting, for the answer to begin, and for
            the rest of it.

        max_answer_bytes: Longest answer that is read.

    Raises:
        ConfigurationError: The endpoint is not such a URL, or the time-out is not
            between 0 and 3600 seconds.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        context: ssl.SSLContext,
        timeout_seconds: float,
        max_answer_bytes: int,
    ) -> None:
        host, port, self._prefix = _parse_endpoint(endpoint)
        if not 0 < timeout_seconds <= _LONGEST_TIMEOUT_SECONDS:
            raise ConfigurationError(
                "The timeout must be more than 0 and at most "
                f"{_LONGEST_TIMEOUT_SECONDS} seconds.",
                field="timeout_seconds",
            )
        self._where = f"{host}:{port}"
        self._timeout_seconds = timeout_seconds
        self._max_answer_bytes = max_answer_bytes
        self._pool = _open_pool(host, port, context, timeout_seconds)

    def send(self, request: Request, headers: dict[str, str]) -> Answer:
        """
        Send one request and read its answer.

        Args:
            request: What to send.

            headers: What is sent beside the request's own, such as the credential.

        Raises:
            TransportError: No answer, or none that could be read; ``facts["reason"]``
                is ``connect``, ``certificate``, ``tls``, ``lost`` or ``answer``.
        """
        with self._failures():
            return self._read(self._open(request, headers, self._timeout_seconds))

    def stream(
        self, request: Request, headers: dict[str, str]
    ) -> Answer | Generator[bytes, None, None]:
        """
        Send one request, and return the pieces of an answer that has no end.

        Args:
            request: What to send.

            headers: See `send`.

        Returns:
            Pieces as they come, which raise `TransportError` too; closing them closes
            the connection. An answer that is no stream of events comes as a whole.

        Raises:
            TransportError: See `send`.
        """
        with self._failures():
            longest = max(self._timeout_seconds, _LONGEST_SILENCE_SECONDS)
            response = self._open(request, headers, longest)
            kind = response.headers.get("Content-Type", "").partition(";")[0]
            if response.status != HTTPStatus.OK or kind.strip().lower() != EVENTS:
                return self._read(response)
        return self._pieces(response)

    def _pieces(
        self, response: urllib3.BaseHTTPResponse
    ) -> Generator[bytes, None, None]:
        try:
            with self._failures():
                while piece := response.read1(_CHUNK_BYTES, decode_content=False):
                    yield piece
        finally:
            response.close()

    def _open(
        self, request: Request, headers: dict[str, str], read_seconds: float
    ) -> urllib3.BaseHTTPResponse:
        return self._pool.urlopen(
            request.method,
            self._prefix + request.target,
            body=request.body,
            headers={**request.headers, **headers, "Accept-Encoding": "identity"},
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(connect=self._timeout_seconds, read=read_seconds),
        )

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn what goes wrong into an error of ours."""
        try:
            yield
        except (HTTPError, OSError, ValueError) as error:
            raise self._failure(error) from None
        except AttributeError:
            # urllib3 asks a socket for its answer that broke, and is gone, while the
            # request was written.
            raise self._closed() from None

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def _read(self, response: urllib3.BaseHTTPResponse) -> Answer:
        chunks, length = [], 0
        deadline = time.monotonic() + self._timeout_seconds
        while chunk := response.read1(_CHUNK_BYTES, decode_content=False):
            length += len(chunk)
            if length > self._max_answer_bytes:
                response.close()
                raise TransportError(
                    f"The answer is longer than {self._max_answer_bytes} bytes.",
                    reason="answer",
                    maximum=self._max_answer_bytes,
                )
            if time.monotonic() > deadline:
                response.close()
                raise TransportError(
                    f"{self._where} did not answer in full within "
                    f"{self._timeout_seconds:g} seconds.",
                    reason="lost",
                )
            chunks.append(chunk)
        response.release_conn()
        return Answer(
            status=response.status,
            content_type=response.headers.get("Content-Type", ""),
            body=b"".join(chunks),
            retry_after_seconds=_retry_after(response.headers.get("Retry-After")),
        )

    def _failure(self, error: Exception) -> TransportError:
        match error:
            # urllib3 makes it a kind of time-out, which it is not.
            case NewConnectionError():
                return TransportError(
                    f"{self._where} could not be reached: {reason(error)}.",
                    reason="connect",
                )
            case ConnectTimeoutError():
                return TransportError(
                    f"{self._where} did not accept a connection within "
                    f"{self._timeout_seconds:g} seconds.",
                    reason="connect",
                )
            case SSLError() | ssl.SSLError():
                return self._tls_failure(error)
            case ReadTimeoutError():
                return TransportError(
                    f"{self._where} did not answer within "
                    f"{self._timeout_seconds:g} seconds.",
                    reason="lost",
                )
            case _ if isinstance(innermost(error), RemoteDisconnected):
                return self._closed()
            case _:
                return TransportError(
                    f"The connection to {self._where} broke: {reason(error)}.",
                    reason="lost",
                )

    def _closed(self) -> TransportError:
        return TransportError(
            f"{self._where} closed the connection without an answer.", reason="lost"
        )

    def _tls_failure(self, error: Exception) -> TransportError:
        cause = innermost(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return TransportError(
                f"The certificate of {self._where} is not trusted: "
                f"{cause.verify_message}.",
                reason="certificate",
            )
        word = getattr(cause, "reason", None) or ""
        if not word or "EOF" in word:
            # Without a reason it was the socket that failed, and the request may have
            # gone out before.
            return self._closed()
        return TransportError(
            f"No secure connection to {self._where}: {tls_words(word)}.",
            reason="tls",
        )


def _open_pool(
    host: str, port: int, context: ssl.SSLContext, timeout_seconds: float
) -> urllib3.HTTPSConnectionPool:
    try:
        # Resolvers encode names so; what they can't is found here and not later.
        host.encode("idna")
        return urllib3.HTTPSConnectionPool(
            host,
            port,
            ssl_context=context,
            timeout=urllib3.Timeout(connect=timeout_seconds, read=timeout_seconds),
            retries=False,
            maxsize=8,
        )
    except (HTTPError, ValueError):
        raise ConfigurationError(
            f"The endpoint names a host that can't be one: {host!r}.",
            field="endpoint",
        ) from None


def _parse_endpoint(endpoint: str) -> tuple[str, int, str]:
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
            "The endpoint must be https://HOST[:PORT][/PREFIX], without user, query "
            "or fragment.",
            field="endpoint",
        )
    return host, port or 443, parts.path.rstrip("/")


def _retry_after(value: str | None) -> float | None:
    if value is None or not value.isascii() or not value.isdigit():
        return None
    return min(float(value[:6]), _LONGEST_PAUSE_SECONDS)
