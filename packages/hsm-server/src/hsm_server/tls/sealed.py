# SPDX-License-Identifier: MIT
"""Serialisation of TLS states in sealed memory files."""

from __future__ import annotations

from cryptography import x509
from msgspec import MsgspecError

from hsm_server.config.exit_codes import ListenError
from hsm_server.system.sealed_memory import read_sealed, seal
from hsm_server.tls.certificates import ends_at, kind_of
from hsm_server.tls.state import TLSState, pack_state, read_state


def seal_state(state: TLSState) -> int:
    """
    Return the descriptor of a sealed file with a state; the caller closes it.

    Raises:
        ListenError: There is no room for it.
    """
    try:
        return seal("ferrohsm-tls", pack_state(state))
    except (OSError, ValueError):
        raise ListenError(
            "The certificates and keys are too large for the TLS state."
        ) from None


def unseal_state(descriptor: int) -> TLSState:
    """
    Return the state in a sealed file, which stays open.

    Raises:
        ListenError: There is none.
    """
    try:
        return read_state(read_sealed(descriptor))
    except (OSError, ValueError, MsgspecError):
        raise ListenError("The TLS state is malformed.") from None


def ends_by_kind(state: TLSState) -> dict[str, float]:
    """Return until when each certificate is valid, in Unix time, by kind of key."""
    return {
        kind_of(x509.load_der_x509_certificate(pair.chain[0])): ends_at(
            pair.chain
        ).timestamp()
        for pair in state.pairs
    }
