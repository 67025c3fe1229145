# SPDX-License-Identifier: MIT
"""Vault's side of its connections to front ends."""

from __future__ import annotations

import socket

from hsm_core.protocols import AsyncHSMGateway
from hsm_server.ipc.front_end import Dependencies, FrontEnd
from hsm_server.vault.gatekeeper import Gatekeeper

__all__ = ["Dependencies", "VaultService"]


class VaultService:
    """
    Executor of the front ends' requests.

    Args:
        gateway: The HSM; the caller closes it.

        gatekeeper: Authenticates visitors.

        longest: Longest operation, packed, in bytes.

        dependencies: Callbacks for events without a response.
    """

    def __init__(
        self,
        gateway: AsyncHSMGateway,
        gatekeeper: Gatekeeper,
        longest: int,
        dependencies: Dependencies,
    ) -> None:
        self._gateway = gateway
        self._gatekeeper = gatekeeper
        self._longest = longest
        self._dependencies = dependencies
        self._connections: set[FrontEnd] = set()
        self._named: dict[str, FrontEnd] = {}

    def connect(self, end: socket.socket, peer_uid: int, *, slot: str = "") -> None:
        """
        Serve a front end that runs as this user, until its connection ends.

        Args:
            end: Connected socket, which is closed then.

            peer_uid: The user.

            slot: Name of the front end, whose former connection ends now: so one that
                was taken over can't pile them up. Without a name there is no former.
        """
        connection = FrontEnd(
            end,
            peer_uid,
            self._gateway,
            self._gatekeeper,
            self._longest,
            self._dependencies,
            self._connections.discard,
        )
        self._connections.add(connection)
        if slot:
            former = self._named.pop(slot, None)
            self._named[slot] = connection
            if former is not None:
                former.close()

    def close(self) -> None:
        """End all connections."""
        for connection in list(self._connections):
            connection.close()
