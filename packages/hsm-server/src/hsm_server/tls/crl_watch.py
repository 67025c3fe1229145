# SPDX-License-Identifier: MIT
"""
CRL watch: expired, expiring and unknown revocation lists.

With an expired list all client certificates of its issuer are rejected until a newer
list is available, so the watch warns in advance.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from hsm_server.observability.logs import Logger
from hsm_server.tls.alarms import Alarms
from hsm_server.tls.board import Board
from hsm_server.tls.ocsp.pace import Clock, SystemClock, first_of

_PART: Final = "client_crl"
_TICK_SECONDS: Final = 60.0
_SOON: Final = 0.1
"""Part of a list's lifetime that remains when its end is logged."""


class CRLWatch:
    """
    CRL watch, a task of the TLS manager: checks issuers and dates of CRLs.

    Args:
        alarms: Receive expired lists and lists of no client CA.

        logger: Logs once that a list expires soon.

        clock: Wall clock.
    """

    def __init__(
        self, alarms: Alarms, logger: Logger, clock: Clock | None = None
    ) -> None:
        self._alarms = alarms
        self._logger = logger
        self._clock = clock or SystemClock()
        self._warned: set[bytes] = set()
        alarms.watch(_PART)

    async def run(self, board: Board, /) -> None:
        """See `Task`."""
        while True:
            generation = board.state.generation
            wait = self._look(board)
            await first_of(board.past(generation), self._clock.sleep(wait))

    async def reload(self, board: Board, /) -> None:
        """See `Task`; the lists are read by another."""
        self._look(board)

    def _look(self, board: Board) -> float:
        """Show what is wrong with lists; return when to look again, in seconds."""
        client = board.state.client
        lists = client.revocation_lists if client is not None else ()
        issuers = _names(client.authorities if client is not None else ())
        now, wait, complaints = self._clock.now(), _TICK_SECONDS, []
        for der in lists:
            crl = x509.load_der_x509_crl(der)
            ends_at = crl.next_update_utc
            if crl.issuer not in issuers:
                complaints.append(
                    f"The revocation list of {_issuer_of(crl)} belongs to no "
                    "client CA. Remove it from --client-crl."
                )
            elif ends_at is not None and ends_at <= now:
                complaints.append(
                    f"The revocation list of {_issuer_of(crl)} expired at "
                    f"{_moment(ends_at)}. Client certificates of this issuer are "
                    "rejected."
                )
            elif ends_at is not None:
                wait = min(wait, (ends_at - now).total_seconds())
                self._warn_in_time(der, crl, ends_at - now)
        self._warned &= set(lists)
        self._tell(complaints)
        return wait

    def _tell(self, complaints: Sequence[str]) -> None:
        if complaints:
            self._alarms.begin(_PART, " ".join(complaints))
        else:
            self._alarms.end(_PART)

    def _warn_in_time(
        self, der: bytes, crl: x509.CertificateRevocationList, left: timedelta
    ) -> None:
        if crl.next_update_utc is None or der in self._warned:
            return
        if left <= (crl.next_update_utc - crl.last_update_utc) * _SOON:
            self._warned.add(der)
            self._logger.warning(
                "revocation list ends soon",
                issuer=_issuer_of(crl),
                ends_at=_moment(crl.next_update_utc),
            )


def _names(authorities: Sequence[bytes]) -> set[x509.Name]:
    return {x509.load_der_x509_certificate(der).subject for der in authorities}


def _issuer_of(crl: x509.CertificateRevocationList) -> str:
    return crl.issuer.rfc4514_string()[:128]


def _moment(instant: datetime | None) -> str:
    return instant.isoformat() if instant else "ever"
