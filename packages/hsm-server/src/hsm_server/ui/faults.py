# SPDX-License-Identifier: MIT
"""Error pages: title, detail, code and status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hsm_core.errors import HSMError
from hsm_server.http.problems import RequestRefusedError, headers_of, problem_of


@dataclass(frozen=True, slots=True)
class ErrorPage:
    """
    An error, as its page shows it.

    Attributes:
        title: Short title.
        detail: One sentence on this case.
        code: Stable error code.
        status: HTTP status.
        headers: Additional headers.
    """

    title: str
    detail: str
    code: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


_TITLES = {
    401: "Not signed in",
    403: "Access denied",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Request too large",
    429: "Too many requests",
    500: "Internal error",
    503: "HSM unavailable",
}


def error_page_of(error: HSMError | RequestRefusedError) -> ErrorPage:
    """Return an error as a page; it reveals no more than a problem document."""
    problem = problem_of(error, "")
    title = _TITLES.get(problem.status, "Invalid request")
    headers = headers_of(error, problem)
    return ErrorPage(title, problem.detail, error.code, problem.status, headers)
