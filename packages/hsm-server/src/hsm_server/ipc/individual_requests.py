# SPDX-License-Identifier: MIT
"""Requests that the vault executes individually."""

from __future__ import annotations

import contextlib

from hsm_core import wire
from hsm_core.errors import AuthenticationError
from hsm_core.model import Caller
from hsm_core.operations import ListAuditEvents
from hsm_core.protocols import AsyncHSMGateway
from hsm_server.ipc.frames import Answer, Request
from hsm_server.ipc.outbox import Outbox
from hsm_server.vault.access import Visitor
from hsm_server.vault.gatekeeper import Gatekeeper


class IndividualRequests:
    """
    Requests that are not executed in batches.

    Args:
        gateway: The HSM.

        gatekeeper: Authenticates visitors, and holds sessions.

        outbox: Sends the events of live views.
    """

    def __init__(
        self, gateway: AsyncHSMGateway, gatekeeper: Gatekeeper, outbox: Outbox
    ) -> None:
        self._gateway = gateway
        self._gatekeeper = gatekeeper
        self._outbox = outbox

    async def fail(
        self, number: int, visitor: Visitor, error: AuthenticationError
    ) -> Answer:
        """Record and return an authentication failure."""
        await self._gatekeeper.record_failure(visitor, error)
        return Answer(number, error=wire.error_record(error))

    async def refuse(self, frame: Request, caller: Caller) -> Answer:
        """Record what the front end itself has refused."""
        await self._gateway.record_refusal(
            caller, frame.code, kind=frame.kind, key_id=frame.key_id
        )
        return Answer(frame.id, caller.principal)

    async def sign_in(self, frame: Request, caller: Caller) -> Answer:
        """Begin a session."""
        signed_in = await self._gatekeeper.sign_in(frame.visitor, caller)
        return Answer(frame.id, caller.principal, wire.encode_packed(signed_in))

    async def sign_out(self, frame: Request, caller: Caller) -> Answer:
        """End a session."""
        await self._gatekeeper.sign_out(frame.visitor, caller)
        return Answer(frame.id, caller.principal)

    async def follow(
        self, frame: Request, caller: Caller, view: ListAuditEvents
    ) -> Answer:
        """Send what the trail records, as long as who asks is let in."""
        pages = self._gatekeeper.while_good(
            frame.visitor, self._gateway.act_as(caller).follow(view)
        )
        async with contextlib.aclosing(pages):
            async for page in pages:
                data = wire.encode_packed(page)
                await self._outbox.send_event(frame.id, caller.principal, data)
        return Answer(frame.id, caller.principal)
