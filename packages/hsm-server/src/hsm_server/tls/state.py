# SPDX-License-Identifier: MIT
"""All that decides about handshakes, as one value that is replaced and never edited."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from hsm_core.model import Line, Record
from hsm_server.config.settings import StatusCheck


class ServerPair(Record, frozen=True, kw_only=True):
    """
    A certificate that the listener shows, and its private key.

    Attributes:
        chain: DER, the server's own certificate first, without the root.
        key: Private key, PKCS #8 in DER; secret.
        issuer: Certificate of who has signed the first, DER, or empty if it is not
            known. OCSP responses are checked with it; it isn't shown for that.
        staple: OCSP response about the first certificate, DER, or empty.
    """

    chain: Annotated[tuple[bytes, ...], Meta(min_length=1)]
    key: bytes
    issuer: bytes = b""
    staple: bytes = b""


class ClientRules(Record, frozen=True, kw_only=True):
    """
    Which client certificates are let in.

    Attributes:
        is_required: Whether a connection without one is refused.
        authorities: Certificates of those who may have signed them, DER; none if the
            last one was withdrawn, and then none is let in.
        revocation_lists: CRLs, DER; if there are any, each issuer in a chain needs one.
        status_check: Whether OCSP is asked too.
    """

    is_required: bool = True
    authorities: tuple[bytes, ...]
    revocation_lists: tuple[bytes, ...] = ()
    status_check: StatusCheck = StatusCheck.OFF


class Challenge(Record, frozen=True, kw_only=True):
    """
    A TLS-ALPN-01 challenge that is pending.

    Attributes:
        name: Server name that the CA will ask for: lower case, an A-label or, for an
            address, its reverse pointer.
        pair: What is shown to it.

    Standard:
        RFC 8737, section 3.
    """

    name: Line
    pair: ServerPair


class TLSState(Record, frozen=True, kw_only=True):
    """
    What the listener's handshakes go by.

    Attributes:
        generation: Grows with every change.
        pairs: Certificates to choose from, at most one for each kind of key.
        client: Who is let in; None lets in everybody, without a certificate.
        challenges: Answered instead, where somebody asks for them alone.
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
