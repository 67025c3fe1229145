# SPDX-License-Identifier: MIT
"""Outcome of a handshake: result, group and peer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from cryptography import x509

from hsm_server.tls.groups import GROUPS
from hsm_server.tls.state import ClientRules

ALERTS: Final = {
    40: "handshake_failure",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    109: "missing_extension",
    110: "unsupported_extension",
    112: "unrecognized_name",
    116: "certificate_required",
    120: "no_application_protocol",
}
"""Alerts that end a handshake, by number (RFC 8446, section 6)."""

_OTHER: Final = "other"


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    Outcome of a handshake.

    Attributes:
        name: ``ok``, ``challenge``, ``timeout``, ``disconnected``, or ``refused_`` or
            ``rejected_`` and the name of the alert that the server or the client sent.
        group: Key exchange group, or ``none``.
    """

    name: str
    group: str = "none"

    @property
    def is_refusal(self) -> bool:
        """Whether the server ended it."""
        return self.name.startswith("refused_")

    @classmethod
    def by_error(cls, error: OSError) -> Outcome:
        """Return the outcome of a handshake that ended by an error."""
        is_late = isinstance(error, ConnectionAbortedError | TimeoutError)
        return cls("timeout" if is_late else "disconnected")

    @classmethod
    def by_alert(cls, number: int, *, is_ours: bool) -> Outcome:
        """Return the outcome of a handshake that ended by an alert."""
        who = "refused" if is_ours else "rejected"
        return cls(f"{who}_{ALERTS.get(number, _OTHER)}")


@dataclass(slots=True)
class Attempt:
    """
    Handshake in progress, with its outcome.

    Attributes:
        outcome: Its outcome, or None until OpenSSL has finished it.
        on_failure: Called after a failure; the alert is already on its way.
    """

    outcome: Outcome | None = None
    on_failure: Callable[[], None] = lambda: None


def group_label(name: str | None) -> str:
    """Return a group as metrics name it: one of a known few."""
    if not name:
        return "none"
    return next((known for known in GROUPS if known.lower() == name.lower()), _OTHER)


@runtime_checkable
class SecureChannel(Protocol):
    """
    Facts of a connection after its handshake.

    Attributes:
        rules: Client rules that accepted the client.
    """

    rules: ClientRules | None

    def group(self) -> str:
        """Return the group of the key exchange, such as ``X25519MLKEM768``."""
        ...

    def peer_certificate(self) -> x509.Certificate | None:
        """Return the client's certificate; None if it has shown none."""
        ...

    def verified_chain(self) -> list[x509.Certificate]:
        """
        Return the client's chain as it was verified, its own certificate first.

        The last is one of the authorities; empty if the client has shown none.
        """
        ...


def channel_of(transport: asyncio.BaseTransport | None) -> SecureChannel | None:
    """Return the channel of a transport; None without a handshake."""
    found = transport.get_extra_info("ssl_object") if transport is not None else None
    return found if isinstance(found, SecureChannel) else None
