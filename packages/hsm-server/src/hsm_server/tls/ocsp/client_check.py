# SPDX-License-Identifier: MIT
"""
OCSP checks of client certificates between handshake and first request.

A result is valid for 50 seconds and refreshed after 20 while a client with that
certificate is connected. So a revocation ends all connections of its certificate within
a minute, and prevents new ones.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from cryptography import x509

from hsm_server.tls.ocsp.fetch import ResponderClient
from hsm_server.tls.ocsp.request import Subject, UnusableError, subject_of
from hsm_server.tls.ocsp.response import Status, VerifiedResponse
from hsm_server.tls.state import Clock

_CHECK_SECONDS: Final = 5.0
_REFRESH_SECONDS: Final = 20.0
_HOLD_SECONDS: Final = 50.0
_FAILURE_SECONDS: Final = 5.0
"""Lifetime of a failed query."""

_MOST_REMEMBERED: Final = 4096
_MOST_QUESTIONS: Final = 16
_TICK_SECONDS: Final = 1.0


class Ruling(StrEnum):
    """Worst status of a chain of certificates."""

    GOOD = "good"
    UNKNOWN = "unknown"
    REVOKED = "revoked"


@dataclass(slots=True)
class _Finding:
    """Status of one certificate: a response, or a failure."""

    answer: VerifiedResponse | None
    refresh_at: float
    until: float


@dataclass(frozen=True, slots=True, eq=False)
class _Follower:
    """Connection that closes when one of its certificates is no longer valid."""

    subjects: tuple[Subject, ...]
    close: Callable[[Ruling], None] = field(repr=False)


class ClientCheck:
    """
    Check of client certificates, also while they are connected.

    Each certificate has at most one query in progress, however many connections wait,
    and at most 16 queries run at once.

    Args:
        asking: Queries responders.

        clock: Clock for the lifetime of results.

        is_hard: Whether to reject a client without a status, also if its certificate
            names no responder.

        count: Called with the result of each query.
    """

    def __init__(
        self,
        asking: ResponderClient,
        clock: Clock,
        *,
        is_hard: bool,
        count: Callable[[str], None],
    ) -> None:
        self._asking = asking
        self._clock = clock
        self._is_hard = is_hard
        self._count = count
        self._findings: OrderedDict[bytes, _Finding] = OrderedDict()
        self._questions: dict[bytes, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(_MOST_QUESTIONS)
        self._followers: set[_Follower] = set()

    async def judge(self, subjects: Sequence[Subject]) -> Ruling:
        """
        Return the status of a client within 5 seconds.

        Args:
            subjects: From `subjects_of`; of none nothing is known.
        """
        rulings = await asyncio.gather(*map(self._learn, subjects))
        return _worst(rulings)

    def lets_in(self, ruling: Ruling) -> bool:
        """Return whether such a client may go on."""
        if ruling is Ruling.UNKNOWN:
            return not self._is_hard
        return ruling is Ruling.GOOD

    def follow(
        self, subjects: Sequence[Subject], close: Callable[[Ruling], None]
    ) -> Callable[[], None]:
        """
        Check a client periodically while it is connected.

        Args:
            subjects: See `judge`.

            close: Called once with the reason, when the connection must close.

        Returns:
            What to call when the connection has ended.
        """
        follower = _Follower(tuple(subjects), close)
        self._followers.add(follower)
        return lambda: self._followers.discard(follower)

    async def run(self) -> None:
        """Refresh results and close connections, until cancelled."""
        try:
            while True:
                await self._clock.sleep(_TICK_SECONDS)
                self._review()
        finally:
            for question in self._questions.values():
                question.cancel()

    def _review(self) -> None:
        now = self._clock.seconds()
        for follower in list(self._followers):
            for subject in follower.subjects:
                finding = self._findings.get(subject.fingerprint)
                if finding is None or now >= finding.refresh_at:
                    self._question(subject)
            ruling = _worst(map(self._known, follower.subjects))
            if not self.lets_in(ruling):
                self._followers.discard(follower)
                follower.close(ruling)

    async def _learn(self, subject: Subject) -> Ruling:
        """Return the status of a certificate; queries if unknown."""
        finding = self._findings.get(subject.fingerprint)
        if finding is None or not self._counts(finding):
            question = self._question(subject)
            await asyncio.wait([question], timeout=_CHECK_SECONDS)
            if question.done():
                question.result()
        return self._known(subject)

    def _known(self, subject: Subject) -> Ruling:
        finding = self._findings.get(subject.fingerprint)
        if finding is None or finding.answer is None or not self._counts(finding):
            return Ruling.UNKNOWN
        self._findings.move_to_end(subject.fingerprint)
        return Ruling.GOOD if finding.answer.status is Status.GOOD else Ruling.REVOKED

    def _counts(self, finding: _Finding) -> bool:
        """Return whether a finding still says something."""
        if self._clock.seconds() >= finding.until:
            return False
        answer = finding.answer
        return answer is None or self._clock.now() < answer.expires_at

    def _question(self, subject: Subject) -> asyncio.Task[None]:
        """Return the question about a certificate that is under way, or begin it."""
        fingerprint = subject.fingerprint
        if fingerprint not in self._questions:
            question = asyncio.create_task(self._ask(subject))
            self._questions[fingerprint] = question
            question.add_done_callback(lambda _: self._questions.pop(fingerprint))
        return self._questions[fingerprint]

    async def _ask(self, subject: Subject) -> None:
        begun_at = self._clock.seconds()
        async with self._turns:
            if self._clock.seconds() - begun_at > _CHECK_SECONDS:
                # The caller already has a response without it.
                return
            try:
                answer = await self._asking.ask(subject, _CHECK_SECONDS)
            except UnusableError as error:
                self._count(error.fault)
                self._note_failure(subject)
            else:
                self._count(answer.status)
                self._note(subject, answer)

    def _note(self, subject: Subject, answer: VerifiedResponse) -> None:
        held = self._findings.get(subject.fingerprint)
        if held is not None and _is_outdated(answer, held.answer):
            answer = held.answer or answer
        now = self._clock.seconds()
        left = (answer.expires_at - self._clock.now()).total_seconds()
        refresh = min(_REFRESH_SECONDS, left / 2)
        self._remember(subject, _Finding(answer, now + refresh, now + _HOLD_SECONDS))

    def _note_failure(self, subject: Subject) -> None:
        """Record a failed query; a known status stays valid for its time."""
        now = self._clock.seconds()
        held = self._findings.get(subject.fingerprint)
        if held is not None and held.answer is not None and self._counts(held):
            held.refresh_at = now + _FAILURE_SECONDS
            return
        self._remember(
            subject, _Finding(None, now + _FAILURE_SECONDS, now + _FAILURE_SECONDS)
        )

    def _remember(self, subject: Subject, finding: _Finding) -> None:
        self._findings[subject.fingerprint] = finding
        self._findings.move_to_end(subject.fingerprint)
        while len(self._findings) > _MOST_REMEMBERED:
            self._findings.popitem(last=False)


def subjects_of(chain: Sequence[x509.Certificate]) -> tuple[Subject, ...]:
    """
    Return the certificates of a chain to ask after: all that name a responder.

    There are none where the client's own names none, for then nothing can be learnt of
    the client. Many CAs name none for their own certificates.

    Args:
        chain: Verified, the client's own certificate first and the root last.
    """
    subjects = [subject_of(chain[place:]) for place in range(len(chain) - 1)]
    if not subjects or subjects[0] is None or not subjects[0].urls:
        return ()
    return tuple(one for one in subjects if one is not None and one.urls)


def _worst(rulings: Iterable[Ruling]) -> Ruling:
    found = set(rulings)
    for ruling in (Ruling.REVOKED, Ruling.UNKNOWN):
        if ruling in found:
            return ruling
    return Ruling.GOOD if found else Ruling.UNKNOWN


def _is_outdated(answer: VerifiedResponse, held: VerifiedResponse | None) -> bool:
    """Return whether a good answer is older than a revocation that is known."""
    return (
        held is not None
        and held.status is Status.REVOKED
        and answer.status is Status.GOOD
        and answer.this_update <= held.this_update
    )
