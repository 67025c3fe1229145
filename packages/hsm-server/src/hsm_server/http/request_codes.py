# SPDX-License-Identifier: MIT
"""Error codes of requests that are not valid HTTP requests of the API."""

from __future__ import annotations

from typing import Final

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
