# SPDX-License-Identifier: MIT
"""Connection of a program: `connect`, and keys of a server as objects."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Self, TypeVar

from hsm_client.choosing import StrPath, choose_settings
from hsm_client.defaults import DEFAULT_TIMEOUT_SECONDS
from hsm_client.exchange import new_idempotency_key
from hsm_client.remote import RemoteHSM, open_remote
from hsm_client.settings import ClientSettings
from hsm_client.waiting import ApprovalWait, execute_when_approved
from hsm_core.errors import HSMError, InvalidInputError
from hsm_core.model import AuditEntry
from hsm_core.operations import Effect, ListAuditEvents, Operation
from hsm_core.protocols import HSM
from hsm_core.users import User

R = TypeVar("R")


class Connection(User):
    """
    Connection to a server: its HSM for the user whose credential is sent.

    It has the methods of `hsm_core.users.User`, and is an `HSM` itself. Thread-safe.
    Close it, or use it in a ``with`` block.

    Args:
        remote: The HSM on the server.

        wait: Limits of the wait for approvals; None does not wait.

        shown: Text for ``repr``.
    """

    def __init__(
        self, remote: RemoteHSM, *, wait: ApprovalWait | None = None, shown: str = ""
    ) -> None:
        super().__init__(
            remote if wait is None else _Waiting(remote, wait), shown=shown
        )
        self._remote = remote

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
        """Close all connections; the object can't be used after it."""
        self._remote.close()

    def follow(
        self,
        operation: ListAuditEvents | None = None,
        /,
        *,
        on_interruption: Callable[[HSMError], None] | None = None,
    ) -> Generator[AuditEntry, None, None]:
        """
        Stream audit records as they are written; see `RemoteHSM.follow`.

        Args:
            operation: Filters; by default, all new records.

            on_interruption: Called with the reason of each interruption.
        """
        return self._remote.follow(
            operation or ListAuditEvents(), on_interruption=on_interruption
        )


class _Waiting:
    """HSM that waits for the approval of operations that need one."""

    def __init__(self, hsm: HSM, wait: ApprovalWait) -> None:
        self._hsm = hsm
        self._wait = wait

    def execute(
        self,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None = None,
        approval_id: str = "",
        expected_generation: int = 0,
    ) -> R:
        """Execute one operation, all attempts of it with one idempotency key."""
        key = attempt_key(operation, idempotency_key)
        return execute_when_approved(
            self._hsm,
            lambda: self._hsm.execute(
                operation,
                idempotency_key=key,
                approval_id=approval_id,
                expected_generation=expected_generation,
            ),
            self._wait,
        )


def connect(
    url: str | None = None,
    *,
    profile: str | None = None,
    token: str | Callable[[], str] | None = None,
    ca_bundle: StrPath | None = None,
    client_cert: StrPath | None = None,
    client_key: StrPath | None = None,
    client_key_password: str = "",
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    wait_seconds: float = 0,
    notify: Callable[[str], None] | None = None,
) -> Connection:
    """
    Connect to a server.

    What is not given comes from the environment (``FERROHSM_ENDPOINT``, ``_CA_BUNDLE``,
    ``_CLIENT_CERT``, ``_CLIENT_KEY``, ``_AUTH_TOKEN``), then from a connection profile,
    as for ``hsm-cli``. Nothing is sent before the first operation.

    Args:
        url: ``https://HOST[:PORT][/PREFIX]``.

        profile: Name of the profile; by default ``FERROHSM_PROFILE``, else the current
            one, else ``dev`` while a development server runs.

        token: Bearer token, ``@FILE`` or ``fd:N`` with it, or a function that is called
            for each attempt and returns it.

        ca_bundle: PEM file of trusted CA certificates; the system's by default.

        client_cert: Client certificate for mutual TLS: a PEM chain, or PKCS#12.

        client_key: PEM file with its key; by default it is in *client_cert*.

        client_key_password: Password of the key.

        timeout_seconds: Time limit of one attempt, at most 3600.

        wait_seconds: Time to wait for the approval of an operation that needs one; 0
            raises `ApprovalRequiredError` at once, ``math.inf`` waits until the request
            is closed.

        notify: Called with each note of a wait, such as ``print``.

    Raises:
        ConfigurationError: There is no server or credential, an argument is wrong, or a
            file can't be used.
        UnsafeFileModeError: Other users may read a file with a secret.

    Example:
        >>> import hsm_client
        >>> with hsm_client.connect("https://localhost:8443", token="-") as hsm:
        ...     print(hsm)
        <Connection https://localhost:8443>
    """
    settings = choose_settings(
        url,
        profile=profile,
        has_token=token is not None,
        token=token if isinstance(token, str) else "",
        ca_bundle=ca_bundle,
        client_cert=client_cert,
        client_key=client_key,
        client_key_password=client_key_password,
        timeout_seconds=timeout_seconds,
    )
    wait = approval_wait(wait_seconds, notify)
    given = token if callable(token) else None
    remote = open_remote(RemoteHSM, settings, token=given)
    return Connection(remote, wait=wait, shown=shown_of(settings))


def approval_wait(
    seconds: float, notify: Callable[[str], None] | None
) -> ApprovalWait | None:
    """
    Return the limits of the wait for approvals; None does not wait.

    Raises:
        InvalidInputError: *seconds* is negative or not a number.
    """
    if not seconds >= 0:
        raise InvalidInputError(
            "wait_seconds must be 0 or more, or math.inf.", field="wait_seconds"
        )
    if not seconds:
        return None
    limit = None if math.isinf(seconds) else float(seconds)
    return (
        ApprovalWait(seconds=limit)
        if notify is None
        else ApprovalWait(seconds=limit, notify=notify)
    )


def attempt_key(operation: Operation[R], given: str | None) -> str | None:
    """Return the idempotency key of all attempts of an operation."""
    if operation.effect is Effect.MUTATION and given is None:
        return new_idempotency_key()
    return given


def shown_of(settings: ClientSettings) -> str:
    """Return the endpoint, and the profile if there is one."""
    profile = f" (profile {settings.profile.name})" if settings.profile else ""
    return f"{settings.endpoint}{profile}"
