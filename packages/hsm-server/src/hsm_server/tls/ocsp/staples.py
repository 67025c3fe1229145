# SPDX-License-Identifier: MIT
"""Status of each server certificate: staples, files with responses, next query."""

from __future__ import annotations

import binascii
import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from hsm_server.tls.certificates import kind_of, pem_body
from hsm_server.tls.files import open_regular
from hsm_server.tls.ocsp.request import (
    Fault,
    Subject,
    UnusableError,
    is_must_staple,
    responders_of,
    subject_of,
)
from hsm_server.tls.ocsp.response import (
    MAX_RESPONSE_BYTES,
    Status,
    VerifiedResponse,
    check_response,
)
from hsm_server.tls.state import Clock, ServerPair

_REVOKED: Final = timedelta(minutes=5)
"""Delay of the next query after a revocation, which may be a mistake."""

_FIRST_RETRY: Final = timedelta(seconds=30)
_LONGEST_RETRY: Final = timedelta(hours=1)
_SHORTEST_REFRESH: Final = timedelta(seconds=5)
_JITTER: Final = 0.2
_RANDOM: Final = secrets.SystemRandom()


def until_refresh(
    answer: VerifiedResponse, now: datetime, longest: timedelta
) -> timedelta:
    """
    Return the time until the next query: half of the remaining validity.

    A little less of it by chance, so that not all servers of a CA ask at once. That
    leaves half of the time to try again.

    Args:
        answer: Good.

        now: In UTC.

        longest: Not longer than that.
    """
    half = min((answer.expires_at - now) / 2, longest)
    return max(half * _RANDOM.uniform(1 - _JITTER, 1), _SHORTEST_REFRESH)


class Retries:
    """Back-off of 30 seconds, doubled after each failure, up to an hour."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Reset the back-off after a success."""
        self._next = _FIRST_RETRY

    def after_failure(self, longest: timedelta) -> timedelta:
        """Return the delay, with 20 % jitter."""
        wait = min(self._next, longest)
        self._next = min(self._next * 2, _LONGEST_RETRY)
        return wait * _RANDOM.uniform(1 - _JITTER, 1 + _JITTER)


class CertificateStatus:
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


_NAME_CHARACTERS: Final = 128


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """
    Server certificate.

    Attributes:
        name: Its subject.
        kind: Key type, such as ``ECDSA``.
        is_must_staple: Whether clients require a staple.
        names_responder: Whether it names an OCSP responder.
        watch: Its status; None if its issuer is unknown.
    """

    name: str
    kind: str
    is_must_staple: bool
    names_responder: bool
    watch: CertificateStatus | None

    def problem(self, *, is_asking: bool) -> str:
        """
        Return why there should be a staple and is none; or nothing.

        Args:
            is_asking: Whether responders are queried.
        """
        is_asked = is_asking and self.names_responder
        was_tried = self.watch is not None and self.watch.was_tried
        if not (self.is_must_staple or is_asked or was_tried):
            return ""
        why = self._why(is_asked=is_asked)
        if not why:
            return ""
        if self.is_must_staple:
            return (
                f"The certificate {self.name} requires an OCSP staple but has none: "
                f"{why}."
            )
        return f"No OCSP staple for the certificate {self.name}: {why}."

    def _why(self, *, is_asked: bool) -> str:
        watch = self.watch
        if watch is None:
            return "its issuer certificate is unknown"
        if watch.staple or watch.is_revoked:
            return ""
        if watch.fault:
            return watch.fault.value
        if watch.was_tried:
            return "it has expired"
        return (
            "" if is_asked else ("it has no responder, and --ocsp-response is not set")
        )


def server_certificate(
    pair: ServerPair, clock: Clock, longest: timedelta
) -> ServerCertificate:
    """
    Return the certificate of a pair.

    What is known of its status is the staple that it has already, if that is good.

    Args:
        pair: Certificate, its chain and its issuer.

        clock: Time by which staples expire.

        longest: Longest time between two questions.
    """
    certificate = x509.load_der_x509_certificate(pair.chain[0])
    issuer = (pair.issuer,) if pair.issuer else ()
    subject = subject_of([*pair.chain, *issuer])
    watch = CertificateStatus(subject, clock, longest) if subject is not None else None
    if watch is not None and pair.staple:
        with contextlib.suppress(UnusableError):
            watch.recall(check_response(pair.staple, watch.subject, clock.now()))
    return ServerCertificate(
        certificate.subject.rfc4514_string()[:_NAME_CHARACTERS] or "without a name",
        kind_of(certificate),
        is_must_staple(certificate),
        bool(responders_of(certificate)),
        watch,
    )


_MAX_FILE_BYTES: Final = 2 * MAX_RESPONSE_BYTES


@dataclass(frozen=True, slots=True)
class Found:
    """
    Current content of the files.

    Attributes:
        answers: Responses by fingerprint of their certificate.
        useless: Files without a usable response, with the reason.
    """

    answers: dict[bytes, VerifiedResponse]
    useless: dict[Path, Fault]


def read_staples(
    paths: Sequence[Path], subjects: Sequence[Subject], now: datetime
) -> Found:
    """
    Read files, and give each response to the certificate that it is about.

    It is done again and again: nothing is concluded from a file's times.

    Args:
        paths: Files with one response each, DER or PEM, at most 128 KiB.

        subjects: Certificates that are shown.

        now: In UTC.
    """
    found = Found({}, {})
    for path in paths:
        try:
            der = _read(path)
        except UnusableError as error:
            found.useless[path] = error.fault
            continue
        faults = [_give(der, subject, now, found) for subject in subjects]
        if None not in faults:
            found.useless[path] = _most_telling(faults)
    return found


def _give(der: bytes, subject: Subject, now: datetime, found: Found) -> Fault | None:
    try:
        found.answers[subject.fingerprint] = check_response(der, subject, now)
    except UnusableError as error:
        return error.fault
    return None


def _most_telling(faults: Sequence[Fault | None]) -> Fault:
    """Return why a response is of no use to the certificate that it is about."""
    for fault in faults:
        if fault is not None and fault is not Fault.OTHER_CERTIFICATE:
            return fault
    return Fault.OTHER_CERTIFICATE


def _read(path: Path) -> bytes:
    """Return a response as DER."""
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError:
        raise UnusableError(Fault.UNREADABLE) from None
    if len(data) > _MAX_FILE_BYTES:
        raise UnusableError(Fault.TOO_LARGE)
    try:
        body = pem_body("OCSP RESPONSE", data)
    except binascii.Error:
        raise UnusableError(Fault.GARBAGE) from None
    return data if body is None else body
