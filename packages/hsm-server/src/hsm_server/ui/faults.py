# SPDX-License-Identifier: MIT
"""Errors as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hsm_core.errors import HSMError
from hsm_server.http.problems import RequestRefusedError, headers_of, problem_of


@dataclass(frozen=True, slots=True)
class Fault:
    """
    What a page of an error says.

    Attributes:
        title: What is wrong, in a few words.
        detail: One sentence about this case.
        code: Stable name for programs, and for who is asked about it.
        status: HTTP status of the answer.
        headers: More headers of the answer.
    """

    title: str
    detail: str
    code: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


_TITLES = {
    401: "You are not signed in",
    403: "This is not allowed",
    404: "This does not exist",
    405: "This page does not take that",
    409: "Things have changed",
    413: "This is too much",
    429: "Too many requests",
    500: "Something went wrong",
    503: "The HSM can't do this now",
}


def fault_of(error: HSMError | RequestRefusedError) -> Fault:
    """Return an error for people; it says no more than a problem document does."""
    problem = problem_of(error, "")
    title = _TITLES.get(problem.status, "This can't be done")
    headers = headers_of(error, problem)
    return Fault(title, problem.detail, error.code, problem.status, headers)
