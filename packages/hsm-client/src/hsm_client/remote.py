# SPDX-License-Identifier: MIT
"""HSM on a server: retries by idempotency, resumed streams."""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Generator
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from hsm_client.messages import (
    Answer,
    EventBlock,
    Request,
    entry_of,
    error_of,
    error_of_event,
    read_blocks,
    request_of,
    result_of,
    stream_request_of,
)
from hsm_client.settings import DEFAULT_TIMEOUT_SECONDS, ClientSettings
from hsm_client.tokens import open_token
from hsm_client.transport import Transport, open_tls_context
from hsm_core.errors import (
    AlgorithmUnavailableError,
    AuthenticationError,
    HSMError,
    InputSizeError,
    InvalidInputError,
    OperationAbortedError,
    OutcomeUnknownError,
    SelfTestFailedError,
    StorageFullError,
    TransportError,
    UnavailableError,
)
from hsm_core.model import AuditEntry
from hsm_core.operations import Effect, ListAuditEvents, Operation
from hsm_core.rest import APPROVAL_HEADER

R = TypeVar("R")

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_IDEMPOTENCY_KEY: Final = re.compile(r"[!-~]{1,128}")
_LAST_GENERATION: Final = 10**15 - 1
"""Highest generation that an entity tag of the server can hold."""

_APPROVAL_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FIRST_PAUSE_SECONDS: Final = 0.2
_MOST_DOUBLINGS: Final = 6
"""Attempts after which pauses stop growing, at about 6 seconds."""

_MAX_ANSWER_BYTES: Final = 96 * 1024 * 1024
_LASTING: Final = (AlgorithmUnavailableError, SelfTestFailedError, StorageFullError)
"""Errors of unavailability that an immediate retry does not resolve."""


def new_idempotency_key() -> str:
    """Return a new idempotency key: 32 random hex digits."""
    return secrets.token_hex(16)


class RemoteHSM:
    """
    HSM on a server, reached over HTTPS (TLS 1.3) with a bearer token.

    Reads and mutations are retried if the server is unavailable or its response is
    lost. A mutation is retried with the same idempotency key, so that it is executed
    once, or with a new one if a crash left nothing of it. Uses, such as signing, are
    not retried. Thread-safe. Close it, or use it in a ``with`` block.

    Args:
        endpoint: ``https://HOST[:PORT][/PREFIX]``.

        token: Called for each attempt; returns the bearer token.

        ca_bundle: PEM file of trusted CA certificates; None means the system's.

        client_cert: PEM file with the client certificate chain, for mutual TLS.

        client_key: PEM file with its key; None means it is in *client_cert*.

        insecure: Skip verification of the server's certificate: an attacker on the
            network can then read and change everything, including the token.

        timeout_seconds: Time limit, in each attempt, for connecting, for the first byte
            of the response, and for the rest of it.

        attempts: Maximum number of attempts, at least 1.

        max_answer_bytes: Maximum length of a response.

        pause: Sleeps between attempts, for a number of seconds.

    Raises:
        ConfigurationError: The endpoint is invalid, the time-out is not between 0 and
            3600 seconds, or a file can't be used.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        token: Callable[[], str],
        ca_bundle: Path | None = None,
        client_cert: Path | None = None,
        client_key: Path | None = None,
        insecure: bool = False,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        attempts: int = 3,
        max_answer_bytes: int = _MAX_ANSWER_BYTES,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        context = open_tls_context(
            ca_bundle=ca_bundle,
            client_cert=client_cert,
            client_key=client_key,
            insecure=insecure,
        )
        self._transport = Transport(
            endpoint,
            context=context,
            timeout_seconds=timeout_seconds,
            max_answer_bytes=max_answer_bytes,
        )
        self._token = token
        self._attempts = attempts
        self._pause = pause

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def execute(
        self,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None = None,
        approval_id: str = "",
        expected_generation: int = 0,
    ) -> R:
        """
        Execute one operation on the server; see `hsm_core.protocols.HSM.execute`.

        Args:
            operation: The operation. It is validated before it is sent.

            idempotency_key: For mutations: 1 to 128 visible ASCII characters; None
                means a new key. Other operations do not send it.

            approval_id: Approval to use; if empty, the server finds it.

            expected_generation: Generation that the key must have; 0 is any.

        Raises:
            HSMError: Error of the server's HSM, with its facts.
            ApprovalRequiredError: The operation needs approval; ``approval`` is the
                request. Execute the same operation again after it is granted.
            OutcomeUnknownError: A mutation was sent and no response received; retry it
                with ``facts["idempotency_key"]``.
            TransportError: No response; ``facts["reason"]`` is ``connect``,
                ``certificate``, ``tls``, ``redirect``, ``lost`` or ``answer``.
        """
        request = request_of(operation)
        if approval_id:
            request.headers[APPROVAL_HEADER] = _checked_approval(approval_id)
        if expected_generation:
            request.headers["If-Match"] = _key_tag(expected_generation)
        effect = operation.effect
        if effect is Effect.MUTATION:
            return self._change(type(operation), request, idempotency_key)
        attempts = 1 if effect is Effect.USE else self._attempts
        return self._exchange(type(operation), request, attempts=attempts)

    def _change(
        self, cls: type[Operation[R]], request: Request, given: str | None
    ) -> R:
        """
        Send a mutation with an idempotency key.

        If a crash aborted it before it changed anything, its operation ID stays
        aborted. It is then retried with a new key, unless the caller gave the key.
        """
        key = new_idempotency_key() if given is None else _checked_key(given)
        for _ in range(1, self._attempts):
            request.headers["Idempotency-Key"] = key
            try:
                return self._exchange(cls, request, attempts=self._attempts, key=key)
            except OperationAbortedError:
                if given is not None:
                    raise
                key = new_idempotency_key()
        request.headers["Idempotency-Key"] = key
        return self._exchange(cls, request, attempts=self._attempts, key=key)

    def follow(
        self,
        operation: ListAuditEvents,
        /,
        *,
        on_interruption: Callable[[HSMError], None] | None = None,
    ) -> Generator[AuditEntry, None, None]:
        """
        Stream audit records as they are written, oldest first, without end.

        An interrupted stream resumes without gaps or duplicates as soon as the server
        is reachable. Each connection is itself recorded.

        Args:
            operation: Filters. Without *start_seq*, only new records are streamed;
                *limit* is ignored.

            on_interruption: Called with the reason of each interruption.

        Raises:
            HSMError: The stream can't start or resume: the credential is no longer
                valid, or the server reports a permanent error.
        """
        position, failures = "", 0
        while True:
            is_open = False
            try:
                for block in self._view(operation, position):
                    position, failures, is_open = block.id or position, 0, True
                    if block.event == "entry":
                        yield entry_of(block.data)
                raise TransportError("The server closed the stream.", reason="lost")
            except (UnavailableError, AuthenticationError) as error:
                failures += 1
                if not _can_resume(error, is_open=is_open, has_begun=bool(position)):
                    raise
                if not position and failures >= self._attempts:
                    raise
                if on_interruption is not None:
                    on_interruption(error)
            self._wait(min(failures, _MOST_DOUBLINGS), None)

    def _view(
        self, operation: ListAuditEvents, position: str
    ) -> Generator[EventBlock, None, None]:
        """Yield the events of one response."""
        request = stream_request_of(operation, position)
        answer = self._transport.stream(request, self._credentials())
        if isinstance(answer, Answer):
            raise error_of(answer)
        with contextlib.closing(answer):
            for block in read_blocks(answer):
                if block.event == "problem":
                    raise error_of_event(block.data)
                yield block

    def _exchange(
        self, cls: type[Operation[R]], request: Request, *, attempts: int, key: str = ""
    ) -> R:
        """
        Send a request until it succeeds, fails permanently, or runs out of attempts.

        With an idempotency *key*, an attempt that may have succeeded without a response
        leaves the outcome unknown until a later attempt gets one.
        """
        unknown: HSMError | None = None
        attempt = 1
        while True:
            answer: Answer | None = None
            try:
                answer = self._send(request)
                return result_of(cls, answer)
            except (UnavailableError, AuthenticationError) as error:
                if key and _may_have_succeeded(error):
                    unknown = error
                goes_on = unknown is not None or _is_retryable(error)
                if attempt >= attempts or not goes_on:
                    if unknown is None:
                        raise
                    raise _outcome_unknown(unknown, key) from unknown
            self._wait(attempt, answer)
            attempt += 1

    def _send(self, request: Request) -> Answer:
        return self._transport.send(request, self._credentials())

    def _credentials(self) -> dict[str, str]:
        token = self._token()
        if not token:
            return {}
        if not _TOKEN.fullmatch(token):
            raise InvalidInputError(
                "auth_token has characters that bearer tokens do not allow.",
                field="auth_token",
            )
        return {"Authorization": f"Bearer {token}"}

    def _wait(self, attempt: int, answer: Answer | None) -> None:
        wish = answer.retry_after_seconds if answer is not None else None
        if wish is None:
            spread = 0.5 + secrets.randbelow(1000) / 1000
            wish = _FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * spread
        self._pause(wish)


def open_remote(settings: ClientSettings) -> RemoteHSM:
    """
    Return the remote HSM of the settings.

    Raises:
        ConfigurationError: A setting or a file can't be used.
    """
    return RemoteHSM(
        settings.endpoint,
        token=open_token(
            settings.token, has_certificate=settings.client_cert is not None
        ),
        ca_bundle=settings.ca_bundle,
        client_cert=settings.client_cert,
        client_key=settings.client_key,
        insecure=settings.insecure,
        timeout_seconds=settings.timeout_seconds,
    )


def _can_resume(error: HSMError, *, is_open: bool, has_begun: bool) -> bool:
    """
    Return whether a stream can resume after an error.

    Args:
        error: Error that interrupted it.

        is_open: Whether the last response had started.

        has_begun: Whether any response had; then a lost server is expected to return.
    """
    if isinstance(error, AuthenticationError):
        # The token expired; the next one may be new.
        return is_open
    is_away = error.facts.get("reason") == "connect"
    return _is_retryable(error) or (has_begun and is_away)


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
