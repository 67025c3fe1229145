# SPDX-License-Identifier: MIT
"""Trial handshake in memory, before a state is distributed."""

from __future__ import annotations

from typing import Final

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from hsm_server.config.exit_codes import ListenError
from hsm_server.tls.contexts import challenge_context, server_context
from hsm_server.tls.openssl import SSL, reason_of
from hsm_server.tls.state import TLSState

_MOST_TURNS: Final = 10
_RECORD_BYTES: Final = 64 * 1024


def try_state(state: TLSState) -> None:
    """
    Show each certificate of a state to a client, in memory.

    Raises:
        ListenError: The state can't be used, or no connection comes of it.
    """
    server_context(state)
    for challenge in state.challenges:
        challenge_context(challenge)
    rules = state.client
    if rules is not None:
        rules = msgspec.structs.replace(rules, is_required=False, revocation_lists=())
    for pair in state.pairs:
        alone = msgspec.structs.replace(state, pairs=(pair,), client=rules)
        if _shake_hands(server_context(alone)) != pair.chain[0]:
            raise ListenError(
                "The new certificate is not the one that a client receives."
            )


def _shake_hands(context: SSL.Context) -> bytes:
    """Return the certificate that a client sees, which believes everybody."""
    server = SSL.Connection(context, None)
    server.set_accept_state()
    client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    client.set_connect_state()
    waiting = [client, server]
    for _ in range(_MOST_TURNS):
        for side, other in ((client, server), (server, client)):
            if side in waiting and _is_done(side):
                waiting.remove(side)
            _carry(side, other)
        if not waiting:
            seen = client.get_peer_certificate(as_cryptography=True)
            return seen.public_bytes(Encoding.DER) if seen is not None else b""
    raise ListenError("A test connection with the new certificate did not complete.")


def _is_done(side: SSL.Connection) -> bool:
    try:
        side.do_handshake()
    except SSL.WantReadError:
        return False
    except SSL.Error as error:
        raise ListenError(
            f"A test connection with the new certificate failed ({reason_of(error)})."
        ) from None
    return True


def _carry(side: SSL.Connection, other: SSL.Connection) -> None:
    """Let one side have what the other has said."""
    try:
        other.bio_write(side.bio_read(_RECORD_BYTES))
    except SSL.WantReadError:
        return
