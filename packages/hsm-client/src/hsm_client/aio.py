# SPDX-License-Identifier: MIT
"""Client of a server for an event loop; requires the extra ``hsm-client[aio]``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Self, TypeVar

from hsm_client.aio_remote import AsyncRemoteHSM
from hsm_client.choosing import StrPath, choose_settings
from hsm_client.connection import approval_wait, attempt_key, shown_of
from hsm_client.defaults import DEFAULT_TIMEOUT_SECONDS
from hsm_client.remote import open_remote
from hsm_client.steps import run_async_steps
from hsm_client.waiting import ApprovalWait, Attempt, waiting
from hsm_core.async_users import AsyncKey, AsyncUser
from hsm_core.errors import HSMError
from hsm_core.model import AuditEntry
from hsm_core.operations.approvals import GetApproval
from hsm_core.operations.audit import ListAuditEvents
from hsm_core.operations.base import Operation
from hsm_core.protocols import AsyncHSM

__all__ = ["AsyncConnection", "AsyncKey", "AsyncRemoteHSM", "connect"]

R = TypeVar("R")


class AsyncConnection(AsyncUser):
    """
    Connection to a server, for an event loop: `hsm_client.Connection` is its twin.

    It has the methods of `hsm_core.async_users.AsyncUser`, and is an `AsyncHSM` itself.
    Use it in one event loop, by any number of tasks. Close it, or use it in an ``async
    with`` block.

    Args:
        remote: The HSM on the server.

        wait: Limits of the wait for approvals; None does not wait.

        shown: Text for ``repr``.
    """

    def __init__(
        self,
        remote: AsyncRemoteHSM,
        *,
        wait: ApprovalWait | None = None,
        shown: str = "",
    ) -> None:
        super().__init__(
            remote if wait is None else _Waiting(remote, wait), shown=shown
        )
        self._remote = remote

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; the object can't be used after it."""
        await self._remote.close()

    def follow(
        self,
        operation: ListAuditEvents | None = None,
        /,
        *,
        on_interruption: Callable[[HSMError], None] | None = None,
    ) -> AsyncGenerator[AuditEntry, None]:
        """
        Stream audit records as they are written; see `AsyncRemoteHSM.follow`.

        Args:
            operation: Filters; by default, all new records.

            on_interruption: Called with the reason of each interruption.
        """
        return self._remote.follow(
            operation or ListAuditEvents(), on_interruption=on_interruption
        )


class _Waiting:
    """HSM that waits for the approval of operations that need one."""

    def __init__(self, hsm: AsyncHSM, wait: ApprovalWait) -> None:
        self._hsm = hsm
        self._wait = wait

    async def execute(
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

        async def take(step: Attempt | float | GetApproval) -> object:
            match step:
                case Attempt():
                    return await self._hsm.execute(
                        operation,
                        idempotency_key=key,
                        approval_id=approval_id,
                        expected_generation=expected_generation,
                    )
                case float():
                    await asyncio.sleep(step)
                    return None
                case _:
                    return await self._hsm.execute(step)

        result: R = await run_async_steps(waiting(self._wait), take)
        return result


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
) -> AsyncConnection:
    """
    Connect to a server; see ``hsm_client.connect`` for arguments and errors.

    Nothing is sent before the first operation, so there is nothing to await. A function
    that is passed as *token* is called in a thread.

    Example:
        >>> from hsm_client import aio
        >>> aio.connect("https://localhost:8443", token="-")
        <AsyncConnection https://localhost:8443>
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
    remote = open_remote(AsyncRemoteHSM, settings, token=given)
    return AsyncConnection(remote, wait=wait, shown=shown_of(settings))
