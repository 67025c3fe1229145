# SPDX-License-Identifier: MIT
"""
REST API: base path, headers, and codes of requests that reach no operation.

The route of an operation is `Operation.route`.
"""

from __future__ import annotations

import re
from typing import Final

from hsm_core.operations.base import Route

__all__ = [
    "API_PREFIX",
    "APPROVAL_HEADER",
    "INTERFACE_HEADER",
    "REQUEST_CODES",
    "RESULT_HEADER",
    "REVISION_HEADER",
    "Route",
    "is_interface_claim",
    "parse_revision",
]

APPROVAL_HEADER: Final = "FerroHSM-Approval"
"""Header with the ID of the granted approval to use."""

INTERFACE_HEADER: Final = "FerroHSM-Interface"
"""Header with what the client's program says of itself, for the audit log alone."""

RESULT_HEADER: Final = "FerroHSM-Result"
"""Header of a raw response with the other fields of the result, as ASCII JSON."""

REVISION_HEADER: Final = "FerroHSM-Revision"
"""Header with the revision that a node of a cluster has applied, or a client seen."""

API_PREFIX: Final = "/api/v1"
"""Base path of all routes."""

REQUEST_CODES: Final = {
    "cross_site": 403,
    "stale_form": 403,
    "route_not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "unsupported_media_type": 415,
    "expectation_failed": 417,
    "internal": 500,
}
"""Codes of requests that never became an operation, with their status."""


_REVISION: Final = re.compile(r"0|[1-9][0-9]{0,14}")


def parse_revision(text: str) -> int | None:
    """Return a value of `REVISION_HEADER`, at most 15 digits; None if it is none."""
    return int(text) if _REVISION.fullmatch(text) else None


def is_interface_claim(text: str) -> bool:
    """Return whether a value of `INTERFACE_HEADER` is 1 to 128 ASCII characters."""
    if not 1 <= len(text) <= 128:
        return False
    return text.isascii() and text.isprintable() and text == text.strip(" ")
