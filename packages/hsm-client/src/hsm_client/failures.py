# SPDX-License-Identifier: MIT
"""Failures of connections, in words without data."""

from __future__ import annotations

import os
import ssl

from hsm_core.errors import TransportError


class Failures:
    """
    Errors of a connection to one server.

    Args:
        where: Host and port.

        timeout_seconds: Time limit of the connection.
    """

    def __init__(self, where: str, timeout_seconds: float) -> None:
        self._where = where
        self._timeout_seconds = timeout_seconds

    def refused(self, error: BaseException) -> TransportError:
        """Return the error of a server that can't be reached."""
        return TransportError(
            f"Can't connect to {self._where}: {reason(error)}.", reason="connect"
        )

    def slow_to_accept(self) -> TransportError:
        """Return the error of a connection that takes too long."""
        return TransportError(
            f"{self._where} did not accept a connection within "
            f"{self._timeout_seconds:g} seconds.",
            reason="connect",
        )

    def silent(self) -> TransportError:
        """Return the error of a response that does not begin, or pauses."""
        return TransportError(
            f"{self._where} did not respond within {self._timeout_seconds:g} seconds.",
            reason="lost",
        )

    def incomplete(self) -> TransportError:
        """Return the error of a response that takes too long as a whole."""
        return TransportError(
            f"{self._where} did not complete its response within "
            f"{self._timeout_seconds:g} seconds.",
            reason="lost",
        )

    def ambiguous(self) -> TransportError:
        """Return the error of a response without a single length."""
        return TransportError(
            f"{self._where} sent a response with an invalid Content-Length.",
            reason="answer",
        )

    def closed(self) -> TransportError:
        """Return the error of a connection that was closed without a response."""
        return TransportError(
            f"{self._where} closed the connection without a response.", reason="lost"
        )

    def lost(self, error: BaseException) -> TransportError:
        """Return the error of a connection that broke."""
        return TransportError(
            f"Lost the connection to {self._where}: {reason(error)}.", reason="lost"
        )

    def tls(self, error: BaseException) -> TransportError:
        """Return the error of a failed TLS handshake."""
        cause = innermost(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return TransportError(
                f"The certificate of {self._where} is not trusted: "
                f"{cause.verify_message}. If a private CA issued it, pass the "
                "certificate of the CA (--ca-bundle FILE, or ca_bundle).",
                reason="certificate",
            )
        word = getattr(cause, "reason", None) or ""
        if not word or "EOF" in word:
            # Without a reason the socket failed, possibly after the request was sent.
            return self.closed()
        return TransportError(
            f"TLS handshake with {self._where} failed: {tls_words(word)}.", reason="tls"
        )


def too_long(maximum: int) -> TransportError:
    """Return the error of a response that is longer than it may be."""
    return TransportError(
        f"The response is longer than {maximum} bytes.",
        reason="answer",
        maximum=maximum,
    )


def client_closed() -> TransportError:
    """Return the error of a client that is used after it was closed."""
    return TransportError("The client is closed.", reason="closed")


def innermost(error: BaseException) -> BaseException:
    """Return the socket error that a library wrapped."""
    for _ in range(8):
        inner = error.__cause__ or next(
            (word for word in error.args if isinstance(word, BaseException)), None
        )
        if inner is None:
            return error
        error = inner
    return error


def reason(error: BaseException) -> str:
    """Return the reason of a failure in a few words, without data."""
    inner = innermost(error)
    if isinstance(inner, ssl.SSLError):
        return tls_words(inner.reason or "TLS failure")
    if isinstance(inner, OSError) and inner.errno is not None and inner.errno > 0:
        return os.strerror(inner.errno)
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return type(inner).__name__


def tls_words(word: str) -> str:
    """Return OpenSSL's name of a failure as lower-case words."""
    return word.lower().replace("_", " ")
