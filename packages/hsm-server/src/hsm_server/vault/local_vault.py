# SPDX-License-Identifier: MIT
"""`VaultAccess` in the process that holds the keys."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from hsm_core.errors import AuthenticationError
from hsm_core.model import Caller
from hsm_core.operations import AuditPage, HSMStatus, ListAuditEvents, Operation
from hsm_core.protocols import AsyncHSMGateway, Request
from hsm_server.limits.buckets import Quota
from hsm_server.limits.guard import ClusterLimits
from hsm_server.vault.access import (
    CancelUse,
    Known,
    Replied,
    Reply,
    SignedIn,
    Told,
    Visitor,
    Who,
    tell_nobody,
)
from hsm_server.vault.gatekeeper import Gatekeeper

R = TypeVar("R")


class _Begun:
    """Use that was begun, until its reply."""

    def __init__(self, request: Request, replied: Replied) -> None:
        self.request = request
        self.quota: Quota | None = None
        self._replied = replied
        self._answer: asyncio.Future[Any] | None = None
        self._is_cancelled = False

    def may_run(self) -> bool:
        """Return whether it is to be executed; replies if the limit is exceeded."""
        if self._is_cancelled:
            return False
        if self.quota is not None and self.quota.wait_seconds:
            self.reply(error=self.quota.error())
            return False
        return True

    def wait_for(self, answer: asyncio.Future[Any]) -> None:
        """Reply when the HSM has answered."""
        self._answer = answer
        answer.add_done_callback(self._take)

    def _take(self, answer: asyncio.Future[Any]) -> None:
        if answer.cancelled():
            return
        error = answer.exception()
        if isinstance(error, Exception):
            self.reply(error=error)
        else:
            self.reply(answer.result())

    def reply(self, result: Any = None, error: Exception | None = None) -> None:
        """Pass on the reply."""
        principal = self.request.caller.principal
        self._replied(Reply(principal, result, error, self.quota))

    def cancel(self) -> None:
        """Give up the reply."""
        self._is_cancelled = True
        if self._answer is not None:
            self._answer.cancel()


class LocalVault:
    """
    Access to an HSM in the same process.

    Args:
        gateway: The HSM; the caller closes it.

        gatekeeper: Authenticates visitors.
    """

    def __init__(self, gateway: AsyncHSMGateway, gatekeeper: Gatekeeper) -> None:
        self._gateway = gateway
        self._gatekeeper = gatekeeper
        self._begun: list[_Begun] = []
        self.on_limits: Callable[[ClusterLimits], None] = lambda _: None

    @property
    def revision(self) -> int:
        """See `VaultAccess.revision`."""
        return self._gateway.revision

    async def greet(self, visitor: Visitor, /, *, known: Known) -> None:
        """See `VaultAccess.greet`."""
        known((await self._gatekeeper.admit(visitor)).principal)

    async def execute(
        self,
        visitor: Visitor,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None,
        known: Known,
        approval_id: str = "",
        expected_generation: int = 0,
        told: Told = tell_nobody,
    ) -> R:
        """See `VaultAccess.execute`."""
        found = await self._gatekeeper.admit_checked(visitor, spends=True)
        caller = found.caller
        known(caller.principal)
        self._charge(caller, operation, told)
        request = Request(
            caller,
            operation,
            idempotency_key,
            approval_id,
            expected_generation,
            found.check,
            visitor.revision,
        )
        (answer,) = self._gateway.execute_many([request])
        result: R = await answer
        return result

    def begin(
        self, visitor: Visitor, operation: Operation[Any], /, replied: Replied
    ) -> CancelUse | None:
        """See `VaultAccess.begin`."""
        if self._gatekeeper.asks_database(visitor, spends=True):
            return None
        try:
            found = self._gatekeeper.authenticate(visitor, spends=True)
        except AuthenticationError:
            return None
        caller, revision = found.caller, visitor.revision
        request = Request(caller, operation, check=found.check, revision=revision)
        begun = _Begun(request, replied)
        begun.quota = self._gatekeeper.charge(caller, operation)
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._execute)
        self._begun.append(begun)
        return begun.cancel

    def _execute(self) -> None:
        """Execute together what was begun in one turn of the event loop."""
        begun, self._begun = self._begun, []
        ready = [each for each in begun if each.may_run()]
        try:
            answers = self._gateway.execute_many([each.request for each in ready])
        except Exception as error:
            for each in ready:
                each.reply(error=error)
            return
        for each, answer in zip(ready, answers, strict=True):
            each.wait_for(answer)

    async def refuse(
        self, visitor: Visitor, code: str, /, *, kind: str, key_id: str, known: Known
    ) -> None:
        """See `VaultAccess.refuse`."""
        caller = await self._gatekeeper.admit(visitor, spends=True)
        known(caller.principal)
        self._charge(caller, None)
        await self._gateway.record_refusal(caller, code, kind=kind, key_id=key_id)

    def _charge(
        self,
        caller: Caller,
        operation: Operation[Any] | None,
        told: Told = tell_nobody,
    ) -> None:
        """
        Charge a caller before anything is done for them.

        Raises:
            RateLimitedError: They have asked for too much.
        """
        quota = self._gatekeeper.charge(caller, operation)
        if quota is not None:
            told(quota)
            if quota.wait_seconds:
                raise quota.error()

    async def follow(
        self, visitor: Visitor, operation: ListAuditEvents, /, *, known: Known
    ) -> AsyncGenerator[AuditPage, None]:
        """See `VaultAccess.follow`."""
        caller = await self._gatekeeper.admit(visitor, spends=True)
        known(caller.principal)
        self._charge(caller, operation)
        pages = self._gatekeeper.while_good(
            visitor, self._gateway.act_as(caller).follow(operation)
        )
        async with contextlib.aclosing(pages):
            async for page in pages:
                yield page

    async def who(self, visitor: Visitor, /, *, known: Known) -> Who:
        """See `VaultAccess.who`."""
        found = await self._gatekeeper.admit_checked(visitor)
        known(found.caller.principal)
        return self._gatekeeper.who(visitor, found)

    async def sign_in(self, visitor: Visitor, /, *, known: Known) -> SignedIn:
        """See `VaultAccess.sign_in`."""
        caller = await self._gatekeeper.admit(visitor, spends=True)
        known(caller.principal)
        return await self._gatekeeper.sign_in(visitor, caller)

    async def sign_out(self, visitor: Visitor, /, *, known: Known) -> None:
        """See `VaultAccess.sign_out`."""
        caller = await self._gatekeeper.admit(visitor)
        known(caller.principal)
        await self._gatekeeper.sign_out(visitor, caller)

    async def token_keys(self) -> bytes:
        """See `VaultAccess.token_keys`."""
        return self._gatekeeper.public_keys()

    async def status(self) -> HSMStatus:
        """See `VaultAccess.status`."""
        return await self._gateway.status()
