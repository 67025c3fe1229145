# SPDX-License-Identifier: MIT
"""A handshake in memory, before anybody is given a state to serve with."""

from __future__ import annotations

import ssl
from typing import Final

import msgspec

from hsm_server.exit_codes import ListenError
from hsm_server.tls.context import ListenerContext
from hsm_server.tls.state import TLSState

__all__ = ["try_state"]

_MOST_TURNS: Final = 10


def try_state(state: TLSState) -> None:
    """
    Show each certificate of a state to a client, in memory.

    Raises:
        ListenError: The state can't be used, or no connection comes of it.
    """
    ListenerContext().use(state)
    for pair in state.pairs:
        alone = msgspec.structs.replace(
            state, pairs=(pair,), client=None, challenges=()
        )
        context = ListenerContext()
        context.use(alone)
        if _shake_hands(context) != pair.chain[0]:
            raise ListenError("A client is shown another certificate than it should.")


def _shake_hands(server_context: ssl.SSLContext) -> bytes | None:
    """Return the certificate that a client sees, which believes everybody."""
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server, server_side=False)
    waiting: list[ssl.SSLObject] = [client, server]
    for _ in range(_MOST_TURNS):
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                raise ListenError(
                    f"A connection with the new certificate fails ({error.reason})."
                ) from None
            waiting.remove(side)
        if not waiting:
            return client.getpeercert(binary_form=True)
    raise ListenError("A connection with the new certificate does not come about.")
