# SPDX-License-Identifier: MIT
"""Status of one server certificate, and time of the next query."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from hsm_server.tls.ocsp.errors import Fault
from hsm_server.tls.ocsp.pace import Clock, Retries, until_refresh
from hsm_server.tls.ocsp.response import Status, VerifiedResponse
from hsm_server.tls.ocsp.subject import Subject

_REVOKED: Final = timedelta(minutes=5)
"""Delay of the next query after a revocation, which may be a mistake."""


class Watch:
    """
    Newest valid response, kept until it expires.

    Only a later response of the issuer replaces it, so an invalid or replayed response
    changes nothing.

    Args:
        subject: The certificate.

        clock: Clock for the expiry of responses.

        longest: Maximum time to the next query after a valid response.

    Attributes:
        fault: Fault of the last attempt, or None.
    """

    def __init__(self, subject: Subject, clock: Clock, longest: timedelta) -> None:
        self.subject = subject
        self.fault: Fault | None = None
        self._clock = clock
        self._longest = longest
        self._answer: VerifiedResponse | None = None
        self._retries = Retries()
        self._ask_at = clock.seconds()
        self._was_tried = False

    @property
    def staple(self) -> bytes:
        """What to show, DER; empty if there is nothing good."""
        answer = self._answer
        if answer is None or answer.status is not Status.GOOD:
            return b""
        return answer.der if self._clock.now() < answer.expires_at else b""

    @property
    def expires_at(self) -> datetime | None:
        """Until when the staple is shown, in UTC; None if there is none."""
        return self._answer.expires_at if self._answer and self.staple else None

    @property
    def is_revoked(self) -> bool:
        """Whether the issuer has revoked it, and hasn't said otherwise since."""
        return self._answer is not None and self._answer.status is Status.REVOKED

    @property
    def was_tried(self) -> bool:
        """Whether there was time to learn something."""
        return self._was_tried

    @property
    def seconds_to_ask(self) -> float:
        """How long it is until a responder should be asked; 0 for now."""
        return max(0.0, self._ask_at - self._clock.seconds())

    def hear(self, answer: VerifiedResponse) -> None:
        """Take note of a responder's answer, and put off the next question."""
        self._note(answer)
        self._retries.forget()
        wait = until_refresh(answer, self._clock.now(), self._longest)
        self._ask_in(min(wait, _REVOKED) if self.is_revoked else wait)

    def recall(self, answer: VerifiedResponse) -> None:
        """Take note of what was shown before; whether it still holds is asked now."""
        self._answer = answer

    def hear_file(self, answer: VerifiedResponse) -> None:
        """Take note of what a file says; no responder is asked while that is good."""
        self._note(answer)
        self._ask_in(answer.expires_at - self._clock.now())

    def fail(self, fault: Fault) -> None:
        """Record a failure, and the time of the next query."""
        self.fault, self._was_tried = fault, True
        self._ask_in(self._retries.after_failure(self._longest))

    def ask_now(self) -> None:
        """Query a responder at once."""
        self._ask_at = self._clock.seconds()

    def _note(self, answer: VerifiedResponse) -> None:
        self.fault, self._was_tried = None, True
        if self._is_news(answer):
            self._answer = answer

    def _ask_in(self, wait: timedelta) -> None:
        self._ask_at = self._clock.seconds() + wait.total_seconds()

    def _is_news(self, answer: VerifiedResponse) -> bool:
        held = self._answer
        if held is None or answer.this_update > held.this_update:
            return True
        if answer.this_update < held.this_update:
            return held.status is Status.GOOD and not self.staple
        return answer.status is Status.REVOKED or held.status is Status.GOOD
