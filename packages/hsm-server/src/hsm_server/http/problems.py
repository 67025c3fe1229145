# SPDX-License-Identifier: MIT
"""
Problem documents of all errors (RFC 9457), with the status from one table.

The type of a problem is ``urn:ferrohsm:error:`` and its code. Programs should use the
code.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web

from hsm_core import errors, wire
from hsm_core.errors import Fact, HSMError
from hsm_core.model import Record
from hsm_core.rest import REQUEST_CODES
from hsm_server.http.responses import Parts

PROBLEM_TYPE: Final = "application/problem+json"
"""Media type of RFC 9457."""

_RETRY_SECONDS: Final = "1"
_RETRIED: Final = {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}

STATUS: Final[dict[type[HSMError], int]] = {
    errors.ApprovalRequiredError: 202,
    errors.MalformedError: 400,
    errors.AuthenticationError: 401,
    errors.AccessDeniedError: 403,
    errors.ApprovalNotFoundError: 404,
    errors.KeyNotFoundError: 404,
    errors.ConflictError: 409,
    errors.IntegrityError: 409,
    errors.PreconditionFailedError: 412,
    errors.PayloadTooLargeError: 413,
    errors.InvalidInputError: 422,
    errors.VerificationError: 422,
    errors.DecryptionError: 422,
    errors.RateLimitedError: 429,
    errors.TooManyApprovalsError: 429,
    errors.UnavailableError: 503,
    errors.ConfigurationError: 503,
}
"""Status by the nearest class of the error's MRO."""

_SILENT: Final = (errors.AuthenticationError, errors.DecryptionError)


class Problem(Record, frozen=True, kw_only=True):
    """
    A problem document (RFC 9457).

    Attributes:
        type: ``urn:ferrohsm:error:`` and the code.
        title: The code in words.
        status: HTTP status of the response.
        detail: One sentence about this case.
        code: Stable name for programs.
        request_id: The request ID, also in log and audit log.
        facts: Details for programs, such as ``field`` and ``maximum``.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    facts: dict[str, Fact] = msgspec.field(default_factory=dict)


class RequestRefusedError(Exception):
    """
    Malformed HTTP request: it matches no route or breaks a rule.

    Args:
        code: One of `REQUEST_CODES`.

        detail: One sentence for people.

        headers: Additional headers of the response.
    """

    def __init__(
        self, code: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.headers = dict(headers or {})


def status_of(error: type[HSMError]) -> int:
    """Return the status of an error class; 500 by default."""
    return next((STATUS[cls] for cls in error.__mro__ if cls in STATUS), 500)


def problem_of(error: HSMError | RequestRefusedError, request_id: str) -> Problem:
    """Return an error as a problem document."""
    facts: dict[str, Fact] = {}
    detail = str(error)
    if isinstance(error, RequestRefusedError):
        status = REQUEST_CODES[error.code]
    else:
        status = status_of(type(error))
        if isinstance(error, _SILENT):
            detail = error.sentence
        else:
            facts = error.facts
    return Problem(
        type=f"urn:ferrohsm:error:{error.code}",
        title=error.code.replace("_", " ").capitalize(),
        status=status,
        detail=detail,
        code=error.code,
        request_id=request_id,
        facts=facts,
    )


def headers_of(
    error: HSMError | RequestRefusedError, problem: Problem
) -> dict[str, str]:
    """Return the response headers of an error."""
    if problem.status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": "Bearer"}
    if problem.status in _RETRIED:
        wait = problem.facts.get("retry_after_seconds", _RETRY_SECONDS)
        return {"Retry-After": str(wait)}
    return error.headers if isinstance(error, RequestRefusedError) else {}


def problem_parts(error: HSMError | RequestRefusedError, request_id: str) -> Parts:
    """Return the response to a request that failed for a known reason."""
    problem = problem_of(error, request_id)
    return Parts(
        problem.status,
        PROBLEM_TYPE,
        wire.encode_json(problem),
        headers_of(error, problem),
    )


def problem_response(
    error: HSMError | RequestRefusedError, request_id: str
) -> web.Response:
    """Return `problem_parts` for the middleware to complete."""
    return problem_parts(error, request_id).response()
