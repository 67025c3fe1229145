# SPDX-License-Identifier: MIT
"""Failures of ACME orders: a reason for people and a kind for metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

import requests
from acme import errors, messages

from hsm_core.errors import HSMError
from hsm_server.system.standard_streams import sentence

_LONGEST_TEXT: Final = 400
_LONGEST_WAIT: Final = 7 * 24 * 3600.0


class FailureKind(StrEnum):
    """Kinds of failures; values of a metric label."""

    UNREACHABLE = "unreachable"
    MALFORMED = "malformed"
    RATE_LIMITED = "rate_limited"
    NO_ACCOUNT = "no_account"
    REFUSED = "refused"
    NOT_PROVED = "not_proved"
    TOO_SLOW = "too_slow"
    UNUSABLE = "unusable"
    STORAGE = "storage"


class Failure(Exception):  # noqa: N818 (what it is)
    """
    Failed order.

    Attributes:
        kind: Kind for metrics.
        reason: A sentence for people.
        retry_at: Earliest next request, in Unix time, or 0.
    """

    def __init__(self, kind: FailureKind, reason: str, retry_at: float = 0.0) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.retry_at = retry_at


def as_failure(error: Exception, retry_after: str | None = None) -> Failure:
    """
    Return the failure of an exception.

    Args:
        error: Anything that the library raises.

        retry_after: Header of the answer that it is about, if there is one.
    """
    match error:
        case Failure():
            return error
        case messages.Error():
            return _refusal(error, retry_after)
        case errors.ValidationError():
            words = " ".join(_complaints(error))
            return Failure(FailureKind.NOT_PROVED, _said("Validation failed", words))
        case errors.IssuanceError():
            return _refusal(error.error, retry_after)
        case errors.TimeoutError() | TimeoutError():
            return Failure(FailureKind.TOO_SLOW, "The CA did not finish in time.")
        case requests.exceptions.InvalidSchema():
            reason = "The CA returned a URL that is not https."
            return Failure(FailureKind.MALFORMED, reason)
        case requests.exceptions.JSONDecodeError():
            return Failure(FailureKind.MALFORMED, "The response of the CA is not JSON.")
        case requests.RequestException():
            return Failure(FailureKind.UNREACHABLE, _unreachable(error))
        case HSMError():
            return Failure(FailureKind.UNUSABLE, sentence(error))
        case OSError():
            return Failure(FailureKind.UNREACHABLE, "Cannot connect to the CA.")
        case errors.Error():
            until = instant_after(retry_after)
            reason = "The CA sent an unexpected response."
            return Failure(FailureKind.MALFORMED, reason, until)
        case _:
            reason = f"The response of the CA is malformed ({type(error).__name__})."
            return Failure(FailureKind.MALFORMED, reason)


def instant_after(retry_after: str | None) -> float:
    """
    Return when a ``Retry-After`` is over, in Unix time; 0 if there is none.

    Standard:
        RFC 9110, section 10.2.3; no more than a week is waited for.
    """
    if retry_after is None:
        return 0.0
    now = time.time()
    try:
        if retry_after.isascii() and retry_after.isdigit():
            until = now + int(retry_after[:9])
        else:
            until = parsedate_to_datetime(retry_after).timestamp()
    except (ValueError, OverflowError):
        return 0.0
    return min(until, now + _LONGEST_WAIT)


def _refusal(error: messages.Error, retry_after: str | None) -> Failure:
    match error.code:
        case "rateLimited":
            kind = FailureKind.RATE_LIMITED
        case "accountDoesNotExist":
            kind = FailureKind.NO_ACCOUNT
        case _:
            kind = FailureKind.REFUSED
    words = f"{error.code or 'unknown'}: {error.detail or ''}"
    return Failure(
        kind, _said("The CA rejected the request", words), instant_after(retry_after)
    )


def _complaints(error: errors.ValidationError) -> Iterator[str]:
    for resource in error.failed_authzrs:
        for challenge in resource.body.challenges:
            if challenge.error is not None:
                name = resource.body.identifier.value
                yield f"{name}: {challenge.error.code}: {challenge.error.detail}"


def _said(what: str, words: str) -> str:
    """Return a sentence that quotes foreign text."""
    printable = "".join(c if c.isprintable() else " " for c in words)
    return f"{what} ({printable[:_LONGEST_TEXT].strip()})."


def _unreachable(error: requests.RequestException) -> str:
    match error:
        case requests.exceptions.SSLError():
            return (
                "The certificate of the CA's server is not trusted. Pass "
                "--acme-ca-bundle FILE."
            )
        case requests.exceptions.Timeout():
            return "The CA did not respond in time."
        case _:
            return "Cannot connect to the CA."
