# SPDX-License-Identifier: MIT
"""Exchanges with a server, without I/O: attempts, idempotency keys, resumed streams."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import msgspec

from hsm_client.messages import (
    Answer,
    BlockReader,
    Request,
    entry_of,
    error_of_event,
    request_of,
    result_of,
    stream_request_of,
)
from hsm_core.errors import (
    AccessDeniedError,
    AlgorithmUnavailableError,
    AuthenticationError,
    HSMError,
    InputSizeError,
    InvalidInputError,
    KeyNotFoundError,
    OperationAbortedError,
    OutcomeUnknownError,
    OverloadedError,
    SelfTestFailedError,
    StorageFullError,
    TransportError,
    UnavailableError,
)
from hsm_core.operations.base import Effect, Operation
from hsm_core.rest import (
    APPROVAL_HEADER,
    INTERFACE_HEADER,
    REVISION_HEADER,
    is_interface_claim,
)

if TYPE_CHECKING:
    from hsm_core.model import AuditEntry
    from hsm_core.operations.audit import ListAuditEvents

R = TypeVar("R")

MAX_ANSWER_BYTES: Final = 96 * 1024 * 1024
"""Maximum length of a response, by default."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_IDEMPOTENCY_KEY: Final = re.compile(r"[!-~]{1,128}")
_LAST_GENERATION: Final = 10**15 - 1
"""Highest generation that an entity tag of the server can hold."""

_APPROVAL_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FIRST_PAUSE_SECONDS: Final = 0.2
_MOST_DOUBLINGS: Final = 6
"""Attempts after which pauses stop growing, at about 6 seconds."""

_LASTING: Final = (AlgorithmUnavailableError, SelfTestFailedError, StorageFullError)
"""Errors of unavailability that an immediate retry does not resolve."""


_UNSETTLING: Final = (
    UnavailableError,
    AuthenticationError,
    AccessDeniedError,
    KeyNotFoundError,
)
"""Errors that say nothing of an earlier attempt: access is checked before."""


class Pause(msgspec.Struct, frozen=True):
    """Time between two attempts, in seconds."""

    seconds: float


class UnsentError(Exception):
    """There is no credential for a request, so it was not sent; its cause says why."""

    def __init__(self, cause: HSMError) -> None:
        super().__init__(str(cause))
        self.cause = cause


Steps: TypeAlias = Generator[Request | Pause, Answer | None, R]
"""
Requests to send and pauses to make, in order; its value is the result.

Each request is answered by its response, by the `HSMError` that it raised, or by
`UnsentError`.
"""


def new_idempotency_key() -> str:
    """Return a new idempotency key: 32 random hex digits."""
    return os.urandom(16).hex()


def exchange(
    operation: Operation[R],
    *,
    attempts: int,
    idempotency_key: str | None = None,
    approval_id: str = "",
    expected_generation: int = 0,
) -> Steps[R]:
    """
    Return the steps that execute one operation; see `hsm_client.RemoteHSM.execute`.

    Args:
        operation: The operation.

        attempts: Maximum number of attempts.

        idempotency_key: For mutations; None means a new key.

        approval_id: Approval to use, or empty.

        expected_generation: Generation that the key must have; 0 is any.

    Raises:
        HSMError: The operation or an option is invalid, or the server's error.
    """
    request = request_of(operation)
    if approval_id:
        request.headers[APPROVAL_HEADER] = _checked_approval(approval_id)
    if expected_generation:
        request.headers["If-Match"] = _key_tag(expected_generation)
    if operation.effect is Effect.MUTATION:
        return (yield from _change(type(operation), request, attempts, idempotency_key))
    is_use = operation.effect is Effect.USE
    return (yield from _repeat(type(operation), request, attempts, is_use=is_use))


def _change(
    cls: type[Operation[R]], request: Request, attempts: int, given: str | None
) -> Steps[R]:
    """
    Send a mutation with an idempotency key.

    If a crash aborted it before it changed anything, its operation ID stays aborted. It
    is then retried with a new key, unless the caller gave the key.
    """
    key = new_idempotency_key() if given is None else _checked_key(given)
    for _ in range(1, attempts):
        request.headers["Idempotency-Key"] = key
        try:
            return (yield from _repeat(cls, request, attempts, key))
        except OperationAbortedError:
            if given is not None:
                raise
            key = new_idempotency_key()
    request.headers["Idempotency-Key"] = key
    return (yield from _repeat(cls, request, attempts, key))


def _repeat(
    cls: type[Operation[R]],
    request: Request,
    attempts: int,
    key: str = "",
    *,
    is_use: bool = False,
) -> Steps[R]:
    """
    Send a request until it succeeds, fails permanently, or runs out of attempts.

    With an idempotency *key*, an attempt that may have succeeded without a response
    leaves the outcome unknown until a later attempt gets one. A use is sent again only
    if nothing was done.
    """
    unknown: HSMError | None = None
    attempt = 1
    while True:
        answer: Answer | None = None
        try:
            answer = yield request
            assert answer is not None  # noqa: S101 (for the type checker)
            return result_of(cls, answer)
        except UnsentError as unsent:
            if unknown is None:
                raise unsent.cause from None
            raise _outcome_unknown(unknown, key) from unsent.cause
        except _UNSETTLING as error:
            if key and _may_have_succeeded(error):
                unknown = error
            goes_on = unknown is not None or _is_retryable(error)
            if is_use:
                goes_on = isinstance(error, OverloadedError)
            if attempt >= attempts or not goes_on:
                if unknown is None:
                    raise
                raise _outcome_unknown(unknown, key) from unknown
        yield _pause(attempt, answer)
        attempt += 1


def _pause(attempt: int, answer: Answer | None = None) -> Pause:
    wish = answer.retry_after_seconds if answer is not None else None
    if wish is None:
        spread = 0.5 + os.urandom(1)[0] / 256
        wish = _FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * spread
    return Pause(wish)


class SeenRevision:
    """
    Highest revision that a cluster's responses have named; thread-safe.

    Sent with each request, it lets another node apply the changes first that the client
    knows of.
    """

    def __init__(self) -> None:
        self._highest = 0
        self._lock = threading.Lock()

    @property
    def header(self) -> dict[str, str]:
        """Header of the next request; none without a cluster."""
        return {REVISION_HEADER: str(self._highest)} if self._highest else {}

    def note(self, answer: Answer) -> Answer:
        """Remember the revision of a response, and return the response."""
        if answer.revision > self._highest:
            with self._lock:
                self._highest = max(self._highest, answer.revision)
        return answer


class View:
    """
    Stream of audit records that resumes without gaps or duplicates.

    Args:
        operation: Filters.

        attempts: Maximum number of attempts to start it.
    """

    def __init__(self, operation: ListAuditEvents, *, attempts: int) -> None:
        self._operation = operation
        self._attempts = attempts
        self._blocks = BlockReader()
        self._position, self._failures, self._is_open = "", 0, False

    def connect(self) -> Request:
        """
        Return the request of the next connection.

        Raises:
            InvalidInputError: The operation is invalid.
        """
        self._blocks, self._is_open = BlockReader(), False
        return stream_request_of(self._operation, self._position)

    def receive(self, piece: bytes) -> Iterator[AuditEntry]:
        """
        Yield the records of a piece of the response.

        Raises:
            HSMError: The server ended the stream with this error.
            TransportError: The piece is not of such a stream.
        """
        for block in self._blocks.feed(piece):
            if block.event == "problem":
                raise error_of_event(block.data)
            self._position = block.id or self._position
            self._failures, self._is_open = 0, True
            if block.event == "entry":
                yield entry_of(block.data)

    def interrupted(self, error: HSMError) -> Pause:
        """
        Return the pause before the next connection.

        Args:
            error: What ended the last one.

        Raises:
            HSMError: This error, if the stream can't resume after it.
        """
        self._failures += 1
        if not self._can_resume(error):
            raise error
        if not self._position and self._failures >= self._attempts:
            raise error
        return _pause(min(self._failures, _MOST_DOUBLINGS))

    def _can_resume(self, error: HSMError) -> bool:
        if isinstance(error, AuthenticationError):
            # The token expired; the next one may be new.
            return self._is_open
        # A lost server is expected to return.
        has_left = bool(self._position) and error.facts.get("reason") == "connect"
        return _is_retryable(error) or has_left


def server_closed() -> TransportError:
    """Return the error of a stream that the server ended without one."""
    return TransportError("The server closed the stream.", reason="lost")


def authorization(token: str) -> dict[str, str]:
    """
    Return the header that carries a bearer token; none for an empty one.

    Raises:
        InvalidInputError: It has characters that no token has.
    """
    if not token:
        return {}
    if not _TOKEN.fullmatch(token):
        raise InvalidInputError(
            "auth_token has characters that bearer tokens do not allow.",
            field="auth_token",
        )
    return {"Authorization": f"Bearer {token}"}


def interface_header(text: str) -> dict[str, str]:
    """
    Return the header that names a program and its interface; none for an empty name.

    Raises:
        InvalidInputError: It is too long or has other characters.
    """
    if not text:
        return {}
    if not is_interface_claim(text):
        raise InvalidInputError(
            "interface must be 1 to 128 printable ASCII characters, without spaces "
            "around them.",
            field="interface",
        )
    return {INTERFACE_HEADER: text}


def _checked_key(key: str) -> str:
    if not 1 <= len(key) <= 128:
        raise InputSizeError(
            "idempotency_key",
            actual=len(key),
            minimum=1,
            maximum=128,
            unit="characters",
        )
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidInputError(
            "idempotency_key must be visible ASCII characters.", field="idempotency_key"
        )
    return key


def _key_tag(generation: int) -> str:
    if not 0 < generation <= _LAST_GENERATION:
        raise InvalidInputError(
            f"expected_generation must be between 1 and {_LAST_GENERATION}.",
            field="expected_generation",
        )
    return f'"{generation}"'


def _checked_approval(approval_id: str) -> str:
    if not _APPROVAL_ID.fullmatch(approval_id):
        raise InvalidInputError(
            "approval_id must be a UUID in lower-case canonical form.",
            field="approval_id",
        )
    return approval_id


def _is_retryable(error: HSMError) -> bool:
    if isinstance(error, TransportError):
        return error.facts.get("reason") == "lost"
    return isinstance(error, UnavailableError) and not isinstance(error, _LASTING)


def _may_have_succeeded(error: HSMError) -> bool:
    if isinstance(error, TransportError):
        return error.facts.get("reason") in {"lost", "answer"}
    return isinstance(error, OutcomeUnknownError) or error.facts.get("status") in {
        502,
        504,
    }


def _outcome_unknown(cause: HSMError, key: str) -> OutcomeUnknownError:
    facts = {name: fact for name, fact in cause.facts.items() if name != "reason"}
    return OutcomeUnknownError(
        f"{cause} The change may have been made. To retry safely, pass the idempotency "
        f"key {key}.",
        **{**facts, "idempotency_key": key},
    )
