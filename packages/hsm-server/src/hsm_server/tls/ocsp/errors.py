# SPDX-License-Identifier: MIT
"""Reasons of failed OCSP queries."""

from __future__ import annotations

from enum import StrEnum


class Fault(StrEnum):
    """
    Fault of a response, or reason of its absence.

    The values are metric labels and words of the log.
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
    The query failed.

    Attributes:
        fault: The reason.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"The OCSP query failed ({fault}).")
        self.fault = fault
