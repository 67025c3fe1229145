# SPDX-License-Identifier: MIT
"""Why nothing was learnt from a responder."""

from __future__ import annotations

from enum import StrEnum


class Fault(StrEnum):
    """
    What is wrong with an answer, or why there is none.

    The values are labels of metrics and words of the log.
    """

    ADDRESS = "address"
    UNREACHABLE = "unreachable"
    SLOW = "slow"
    HTTP_STATUS = "http_status"
    REDIRECT = "redirect"
    TOO_LARGE = "too_large"
    GARBAGE = "garbage"
    MALFORMED_REQUEST = "malformed_request"
    INTERNAL_ERROR = "internal_error"
    TRY_LATER = "try_later"
    SIG_REQUIRED = "sig_required"
    UNAUTHORIZED = "unauthorized"
    OTHER_CERTIFICATE = "other_certificate"
    EXTENSION = "extension"
    SIGNATURE = "signature"
    RESPONDER = "responder"
    FUTURE = "future"
    STALE = "stale"
    NONCE = "nonce"
    UNKNOWN = "unknown"
    UNREADABLE = "unreadable"


class UnusableError(Exception):
    """
    Nothing was learnt.

    Attributes:
        fault: Why.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"Nothing was learnt of the certificate ({fault}).")
        self.fault = fault
