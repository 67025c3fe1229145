# SPDX-License-Identifier: MIT
"""Both ends of the connection between front end and vault, in this process."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from hsm_core.model import Caller
from hsm_core.operations import Operation
from hsm_core.protocols import HSM, AsyncHSMGateway
from hsm_server.config.settings import TokenRules
from hsm_server.identity.token_keys import TokenTrust
from hsm_server.ipc.front_end import Dependencies, VaultService
from hsm_server.ipc.remote_vault import RemoteVault
from hsm_server.vault.access import Visitor
from hsm_server.vault.gatekeeper import Gatekeeper
from tests.contract.hsm_ways import Connect, running_loop
from tests.e2e.tokens import mint

R = TypeVar("R")

SECRET = b"tests only: 32 bytes or more of it"
LONGEST = 65 * 1024 * 1024


class _Remote:
    """An HSM as the bearer of a token sees it from a front end."""

    def __init__(
        self, vault: RemoteVault, visitor: Visitor, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._vault = vault
        self._visitor = visitor
        self._loop = loop

    def execute(
        self,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None = None,
        approval_id: str = "",
        expected_generation: int = 0,
    ) -> R:
        """Execute it on the loop, and wait."""

        async def work() -> R:
            return await self._vault.execute(
                self._visitor,
                operation,
                idempotency_key=idempotency_key,
                known=lambda principal: None,
                approval_id=approval_id,
                expected_generation=expected_generation,
            )

        return asyncio.run_coroutine_threadsafe(work(), self._loop).result()


@contextmanager
def serve_over_ipc(gateway: AsyncHSMGateway) -> Iterator[Connect]:
    """Connect a front end with an HSM; give what reaches it as a caller."""
    faults: list[object] = []
    dependencies = Dependencies(faults.append, faults.append)
    gatekeeper = Gatekeeper(
        gateway, TokenTrust.of_secret(SECRET, TokenRules()), lambda: None
    )

    async def begin() -> tuple[VaultService, RemoteVault]:
        ours, theirs = socket.socketpair()
        service = VaultService(gateway, gatekeeper, LONGEST, dependencies)
        service.connect(theirs, os.geteuid())
        vault = RemoteVault(faults.append)
        vault.attach(ours)
        return service, vault

    async def end(service: VaultService, vault: RemoteVault) -> None:
        vault.close()
        service.close()

    with running_loop() as loop:
        service, vault = asyncio.run_coroutine_threadsafe(begin(), loop).result()

        def connect(caller: Caller) -> HSM:
            token = mint(SECRET, caller.principal, [r.value for r in caller.roles])
            return _Remote(vault, Visitor(credential=token), loop)

        try:
            yield connect
        finally:
            asyncio.run_coroutine_threadsafe(end(service, vault), loop).result()
    assert [] == faults
