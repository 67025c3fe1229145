# SPDX-License-Identifier: MIT
"""HSM on a server: retries by idempotency, resumed streams."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from hsm_client.defaults import DEFAULT_TIMEOUT_SECONDS
from hsm_client.exchange import (
    MAX_ANSWER_BYTES,
    Pause,
    SeenRevision,
    UnsentError,
    View,
    authorization,
    exchange,
    interface_header,
    server_closed,
)
from hsm_client.messages import Answer, Request, error_of
from hsm_client.profile_secrets import key_password_of
from hsm_client.settings import ClientSettings
from hsm_client.steps import run_steps
from hsm_client.tokens import open_token
from hsm_client.transport import Transport, open_tls_context
from hsm_core.errors import AuthenticationError, HSMError, UnavailableError
from hsm_core.operations.base import Operation

if TYPE_CHECKING:
    from hsm_core.model import AuditEntry
    from hsm_core.operations.audit import ListAuditEvents

R = TypeVar("R")
T = TypeVar("T")
S = TypeVar("S")


class RemoteBase(ABC, Generic[T, S]):
    """What `RemoteHSM` and its asynchronous twin share: settings and credentials."""

    def __init__(
        self,
        endpoint: str,
        *,
        token: Callable[[], str],
        ca_bundle: Path | None = None,
        client_cert: Path | None = None,
        client_key: Path | None = None,
        client_key_password: str = "",
        insecure: bool = False,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        attempts: int = 3,
        interface: str = "",
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        pause: Callable[[float], S] | None = None,
    ) -> None:
        context = open_tls_context(
            ca_bundle=ca_bundle,
            client_cert=client_cert,
            client_key=client_key,
            client_key_password=client_key_password,
            insecure=insecure,
        )
        self._transport = self._open_transport(
            endpoint,
            context=context,
            timeout_seconds=timeout_seconds,
            max_answer_bytes=max_answer_bytes,
        )
        self._token = token
        self._attempts = attempts
        self._interface = interface_header(interface)
        self._pause = pause or self._sleep
        self._seen = SeenRevision()

    @abstractmethod
    def _open_transport(self, endpoint: str, **options: Any) -> T:
        """Return a pool of connections."""

    @staticmethod
    @abstractmethod
    def _sleep(seconds: float, /) -> S:
        """Wait between two attempts."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class RemoteHSM(RemoteBase[Transport, None]):
    """
    HSM on a server, reached over HTTPS (TLS 1.3) with a bearer token.

    Reads and mutations are retried if the server is unavailable or its response is
    lost. A mutation is retried with the same idempotency key, so that it is executed
    once, or with a new one if a crash left nothing of it. A use, such as signing, is
    retried only if the server was too busy to begin it. Thread-safe. Close it, or use
    it in a ``with`` block.

    Args:
        endpoint: ``https://HOST[:PORT][/PREFIX]``.

        token: Called for each attempt; returns the bearer token.

        ca_bundle: PEM file of trusted CA certificates; None means the system's.

        client_cert: Client certificate for mutual TLS: a PEM chain, or PKCS#12.

        client_key: PEM file with its key; None means it is in *client_cert*.

        client_key_password: Password of the key; empty for none.

        insecure: Skip verification of the server's certificate: an attacker on the
            network can then read and change everything, including the token.

        timeout_seconds: Time limit, in each attempt, for connecting, for the first byte
            of the response, and for the rest of it.

        attempts: Maximum number of attempts, at least 1.

        interface: Name of this program and its interface for the audit log, 1 to 128
            printable ASCII characters; empty for none. The server does not verify it.

        max_answer_bytes: Maximum length of a response.

        pause: Sleeps between attempts, for a number of seconds; ``time.sleep`` by
            default.

    Raises:
        ConfigurationError: The endpoint is invalid, the time-out is not between 0 and
            3600 seconds, or a file can't be used.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; the client can't be used after it."""
        self._transport.close()

    def for_interface(self, interface: str) -> RemoteHSM:
        """
        Return the same HSM for one program that uses an interface.

        It shares the connections: closing either closes both.

        Args:
            interface: See `RemoteHSM`.

        Raises:
            InvalidInputError: *interface* is too long or has other characters.
        """
        from copy import copy

        other = copy(self)
        other._interface = interface_header(interface)  # noqa: SLF001 (of this class)
        return other

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
        Execute one operation on the server; see `HSM.execute`.

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
                ``certificate``, ``tls``, ``redirect``, ``lost``, ``answer`` or
                ``closed``.
        """
        steps = exchange(
            operation,
            attempts=self._attempts,
            idempotency_key=idempotency_key,
            approval_id=approval_id,
            expected_generation=expected_generation,
        )
        return run_steps(steps, self._take)

    def _take(self, step: Request | Pause) -> Answer | None:
        if isinstance(step, Pause):
            self._pause(step.seconds)
            return None
        try:
            headers = self._credentials()
        except HSMError as error:
            raise UnsentError(error) from None
        headers |= self._seen.header
        return self._seen.note(self._transport.send(step, headers))

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
            operation: Filters. Without *start_seq* and *cursor*, only new records are
                streamed, in a cluster those of all nodes; *limit* is ignored.

            on_interruption: Called with the reason of each interruption.

        Raises:
            HSMError: The stream can't start or resume: the credential is no longer
                valid, or the server reports a permanent error.
        """
        view = View(operation, attempts=self._attempts)
        while True:
            try:
                for piece in self._connect(view):
                    yield from view.receive(piece)
                raise server_closed()
            except (UnavailableError, AuthenticationError) as error:
                pause = view.interrupted(error)
                if on_interruption is not None:
                    on_interruption(error)
            self._pause(pause.seconds)

    def _connect(self, view: View) -> Generator[bytes, None, None]:
        """Yield the pieces of one response."""
        answer = self._transport.stream(view.connect(), self._credentials())
        if isinstance(answer, Answer):
            raise error_of(answer)
        with contextlib.closing(answer):
            yield from answer

    def _open_transport(self, endpoint: str, **options: Any) -> Transport:
        return Transport(endpoint, **options)

    @staticmethod
    def _sleep(seconds: float, /) -> None:
        time.sleep(seconds)

    def _credentials(self) -> dict[str, str]:
        return authorization(self._token()) | self._interface


Q = TypeVar("Q", bound=RemoteBase[Any, Any])


def open_remote(
    kind: type[Q],
    settings: ClientSettings,
    *,
    token: Callable[[], str] | None = None,
    interface: str = "",
) -> Q:
    """
    Return the remote HSM of the settings.

    Args:
        kind: `RemoteHSM`, or its asynchronous twin.

        settings: Connection and credential.

        token: Returns the bearer token, in place of that of the settings.

        interface: See `RemoteHSM`.

    Raises:
        ConfigurationError: A setting or a file can't be used.
    """
    return kind(
        settings.endpoint,
        token=token
        or open_token(settings.token, has_certificate=settings.client_cert is not None),
        ca_bundle=settings.ca_bundle,
        client_cert=settings.client_cert,
        client_key=settings.client_key,
        client_key_password=key_password_of(settings),
        insecure=settings.insecure,
        timeout_seconds=settings.timeout_seconds,
        interface=interface,
    )
