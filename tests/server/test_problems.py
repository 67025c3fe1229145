# SPDX-License-Identifier: MIT
"""The table of statuses, and what a problem says."""

import json

import pytest

from hsm_core import errors
from hsm_core.errors import HSMError
from hsm_core.rest import REQUEST_CODES
from hsm_server.config.exit_codes import EXIT_CODES, ExitCode, ListenError, exit_code_of
from hsm_server.http.problems import (
    STATUS,
    Problem,
    RequestRefusedError,
    problem_of,
    problem_response,
    status_of,
)

PUBLIC = [
    cls
    for cls in map(vars(errors).get, errors.__all__)
    if isinstance(cls, type) and issubclass(cls, HSMError) and cls is not HSMError
]


@pytest.mark.parametrize("error", PUBLIC, ids=lambda error: error.code)
def test_every_error_has_a_status(error: type[HSMError]) -> None:
    """No public error falls through to 500."""
    assert any(ancestor in STATUS for ancestor in error.__mro__)
    assert 200 < status_of(error) < 600
    assert 500 != status_of(error)


@pytest.mark.parametrize("error", PUBLIC, ids=lambda error: error.code)
def test_every_error_becomes_a_problem(error: type[HSMError]) -> None:
    """Type, title, status, detail, code and request id are there."""
    raised = error.from_wire("A sentence.", {"field": "x"})
    response = problem_response(raised, "req-1")
    assert isinstance(response.body, bytes)
    body = json.loads(response.body)

    assert response.status == body["status"]
    assert f"urn:ferrohsm:error:{error.code}" == body["type"]
    assert error.code == body["code"]
    assert "req-1" == body["request_id"]
    assert body["title"]
    assert body["detail"]


def test_facts_travel() -> None:
    """What a program needs is in facts."""
    error = errors.PayloadTooLargeError("message", actual=3, maximum=2)
    expected = {"field": "message", "actual": 3, "minimum": 0, "maximum": 2}

    assert expected == problem_of(error, "r").facts


@pytest.mark.parametrize("error", [errors.DecryptionError, errors.AuthenticationError])
def test_some_errors_say_nothing(error: type[HSMError]) -> None:
    """Whatever was said inside, the answer is one."""
    problem = problem_of(error("The tag at byte 7 is wrong.", field="tag"), "r")

    assert error.sentence == problem.detail
    assert {} == problem.facts


def test_a_refusal_to_authenticate_names_the_scheme() -> None:
    """RFC 9110, section 11.6.1: 401 comes with a challenge."""
    response = problem_response(errors.AuthenticationError(), "r")

    assert "Bearer" == response.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    "error",
    [
        errors.StoreUnavailableError(),
        errors.AuditUnavailableError(),
        errors.OutcomeUnknownError(),
    ],
    ids=lambda error: str(error.code),
)
def test_unavailability_says_when_to_come_back(error: errors.HSMError) -> None:
    """503 comes with Retry-After: store, trail and processes heal by themselves."""
    response = problem_response(error, "r")

    assert 503 == response.status
    assert response.headers["Retry-After"].isdigit()


@pytest.mark.parametrize("code", REQUEST_CODES)
def test_codes_of_requests_are_not_codes_of_errors(code: str) -> None:
    """A program can tell them apart."""
    problem = problem_response(RequestRefusedError(code, "No."), "r")

    assert REQUEST_CODES[code] == problem.status
    assert code == "internal" or code not in errors.error_classes()


def test_a_problem_in_a_log_gives_nothing_away() -> None:
    """Like every record, its repr is its type."""
    assert "<Problem>" == repr(problem_of(errors.KeyNotFoundError(), "r"))
    assert Problem.__name__ == "Problem"


@pytest.mark.parametrize("error", [*PUBLIC, ListenError], ids=lambda e: e.__name__)
def test_every_error_has_an_exit_code(error: type[HSMError]) -> None:
    """No error at start ends in a traceback, and none in success."""
    code = exit_code_of(error.from_wire("x", {}))

    assert code in ExitCode
    assert code is not ExitCode.OK
    assert any(ancestor in EXIT_CODES for ancestor in error.__mro__)
