# SPDX-License-Identifier: MIT
"""What went wrong with a CA, in words for people and in a kind for machines."""

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
    """Kinds of failures; labels of metrics."""

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
    An order that came to nothing.

    Attributes:
        kind: For machines.
        reason: A sentence for people.
        retry_at: Before which the CA wants to hear nothing, in Unix time, or 0.
    """

    def __init__(self, kind: FailureKind, reason: str, retry_at: float = 0.0) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.retry_at = retry_at


def as_failure(error: Exception, retry_after: str | None = None) -> Failure:
    """
    Return what an error means.

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
            return Failure(FailureKind.NOT_PROVED, _said("Not proved", words))
        case errors.IssuanceError():
            return _refusal(error.error, retry_after)
        case errors.TimeoutError() | TimeoutError():
            return Failure(FailureKind.TOO_SLOW, "The CA has taken too long.")
        case requests.exceptions.InvalidSchema():
            reason = "The CA has named a URL that is not https."
            return Failure(FailureKind.MALFORMED, reason)
        case requests.exceptions.JSONDecodeError():
            return Failure(FailureKind.MALFORMED, "The CA has answered no JSON.")
        case requests.RequestException():
            return Failure(FailureKind.UNREACHABLE, _unreachable(error))
        case HSMError():
            return Failure(FailureKind.UNUSABLE, sentence(error))
        case OSError():
            return Failure(FailureKind.UNREACHABLE, "The CA can't be reached.")
        case errors.Error():
            until = instant_after(retry_after)
            reason = "The CA has answered what it should not."
            return Failure(FailureKind.MALFORMED, reason, until)
        case _:
            reason = f"The CA's answer can't be read ({type(error).__name__})."
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
    return Failure(kind, _said("The CA refuses", words), instant_after(retry_after))


def _complaints(error: errors.ValidationError) -> Iterator[str]:
    for resource in error.failed_authzrs:
        for challenge in resource.body.challenges:
            if challenge.error is not None:
                name = resource.body.identifier.value
                yield f"{name}: {challenge.error.code}: {challenge.error.detail}"


def _said(what: str, words: str) -> str:
    """Return a sentence with words that are not ours."""
    printable = "".join(c if c.isprintable() else " " for c in words)
    return f"{what} ({printable[:_LONGEST_TEXT].strip()})."


def _unreachable(error: requests.RequestException) -> str:
    match error:
        case requests.exceptions.SSLError():
            return (
                "The CA's own certificate is not to be trusted; see --acme-ca-bundle."
            )
        case requests.exceptions.Timeout():
            return "The CA does not answer in time."
        case _:
            return "The CA can't be reached."
