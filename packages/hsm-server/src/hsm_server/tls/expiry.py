# SPDX-License-Identifier: MIT
"""Expiry alarm of the certificates in force."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from hsm_server.tls.alarms import Alarms
from hsm_server.tls.board import Board
from hsm_server.tls.certificates import kind_of
from hsm_server.tls.sources import now_utc
from hsm_server.tls.state import ClientRules, ServerPair

_PERIOD_SECONDS: Final = 60.0
_LONGEST: Final = timedelta(days=14)
_PART: Final = "expiry"


class ExpiryWatch:
    """
    Expiry watch, a task of the TLS manager that changes nothing.

    The alarm starts when less than a tenth of a certificate's lifetime remains, at most
    14 days, and when all client CAs have expired.

    Args:
        alarms: Receive the alarm.

        now: Returns the wall time.
    """

    def __init__(self, alarms: Alarms, now: Callable[[], datetime] = now_utc) -> None:
        self._alarms = alarms
        self._now = now
        alarms.watch(_PART)

    async def run(self, board: Board, /) -> None:
        """See `Task`."""
        while True:
            self.look(board)
            await asyncio.sleep(_PERIOD_SECONDS)

    async def reload(self, board: Board, /) -> None:
        """See `Task`."""
        self.look(board)

    def look(self, board: Board) -> None:
        """Begin or end the alarm, as it is now."""
        complaints = [self._complaint(pair) for pair in board.state.pairs]
        complaints.append(self._complaint_about(board.state.client))
        reason = " ".join(filter(None, complaints))
        if reason:
            self._alarms.begin(_PART, reason)
        else:
            self._alarms.end(_PART)

    def _complaint_about(self, rules: ClientRules | None) -> str:
        if rules is None or not rules.authorities:
            # Files that name no CA are an alarm of their own.
            return ""
        found = map(x509.load_der_x509_certificate, rules.authorities)
        if any(ca.not_valid_after_utc > self._now() for ca in found):
            return ""
        return "All client CAs have expired. All client certificates are rejected."

    def _complaint(self, pair: ServerPair) -> str:
        chain = [x509.load_der_x509_certificate(der) for der in pair.chain]
        first = min(chain, key=lambda certificate: certificate.not_valid_after_utc)
        ends, begins = first.not_valid_after_utc, first.not_valid_before_utc
        if ends - self._now() > min(_LONGEST, (ends - begins) / 10):
            return ""
        verb = "expires" if ends > self._now() else "expired"
        return f"The {kind_of(chain[0])} certificate {verb} at {ends.isoformat()}."
