# SPDX-License-Identifier: MIT
"""TLS state: one immutable value that determines handshakes."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from hsm_core.model import Line, Record
from hsm_server.config.settings import StatusCheck


class ServerPair(Record, frozen=True, kw_only=True):
    """
    Server certificate and its private key.

    Attributes:
        chain: DER, server certificate first, without the root.
        key: Private key, PKCS #8 in DER; secret.
        issuer: Issuer certificate, DER, or empty if unknown. It verifies OCSP responses
            and is not sent.
        staple: OCSP response about the server certificate, DER, or empty.
    """

    chain: Annotated[tuple[bytes, ...], Meta(min_length=1)]
    key: bytes
    issuer: bytes = b""
    staple: bytes = b""


class ClientRules(Record, frozen=True, kw_only=True):
    """
    Client certificate rules.

    Attributes:
        is_required: Whether to reject connections without a certificate.
        authorities: CA certificates, DER; empty if the last one was withdrawn, and then
            no client is accepted.
        revocation_lists: CRLs, DER; if any, each issuer in a chain needs one.
        status_check: Whether OCSP is checked too.
    """

    is_required: bool = True
    authorities: tuple[bytes, ...]
    revocation_lists: tuple[bytes, ...] = ()
    status_check: StatusCheck = StatusCheck.OFF


class Challenge(Record, frozen=True, kw_only=True):
    """
    Pending TLS-ALPN-01 challenge.

    Attributes:
        name: Server name that the CA will request: lower case, an A-label or, for an
            address, its reverse pointer.
        pair: Certificate for the challenge.

    Standard:
        RFC 8737, section 3.
    """

    name: Line
    pair: ServerPair


class TLSState(Record, frozen=True, kw_only=True):
    """
    TLS state of the listener.

    Attributes:
        generation: Increases with every change.
        pairs: Certificates, at most one per key type.
        client: Client certificate rules; None requests no certificate.
        challenges: Pending ACME challenges, for connections that request only those.
    """

    generation: Annotated[int, Meta(ge=0)]
    pairs: Annotated[tuple[ServerPair, ...], Meta(min_length=1)]
    client: ClientRules | None = None
    challenges: tuple[Challenge, ...] = ()


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(TLSState)


def pack_state(state: TLSState) -> bytes:
    """Return a state as MessagePack; private keys are in it."""
    return _ENCODER.encode(state)


def read_state(data: bytes) -> TLSState:
    """Return the state that `pack_state` has written."""
    return _DECODER.decode(data)
