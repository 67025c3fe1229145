# SPDX-License-Identifier: MIT
"""Timing of renewals and retries."""

from __future__ import annotations

import random
import time
from typing import Final

from cryptography import x509

from hsm_server.tls.acme.failures import Failure, FailureKind

_HOUR: Final = 3600.0
_FIRST_SECONDS: Final = {
    FailureKind.UNREACHABLE: 10.0,
    FailureKind.NO_ACCOUNT: 10.0,
    FailureKind.STORAGE: 30.0,
    FailureKind.TOO_SLOW: 60.0,
    FailureKind.MALFORMED: 60.0,
    FailureKind.UNUSABLE: 300.0,
    FailureKind.NOT_PROVED: 300.0,
    FailureKind.REFUSED: 300.0,
    FailureKind.RATE_LIMITED: 900.0,
}
"""Delay after the first failure; CAs limit failed validations per hour."""

_LONGEST_SECONDS: Final = 6 * _HOUR
_LONGEST_WITHOUT_SECONDS: Final = _HOUR
"""Maximum delay without a valid certificate."""

_JITTER: Final = random.SystemRandom()


def usual_renewal(certificate: x509.Certificate) -> float:
    """
    Return when to renew if the CA says nothing about it, in Unix time.

    That is at two thirds of the life, or a little sooner: not all at once.
    """
    begins, life = _life(certificate)
    return begins + life * (2 / 3 - _JITTER.uniform(0, 0.03))


def latest_renewal(certificate: x509.Certificate) -> float:
    """Return when to renew whatever the CA says: at five sixths of the life."""
    begins, life = _life(certificate)
    return begins + life * 5 / 6


def pause_seconds(certificate: x509.Certificate) -> float:
    """
    Return the minimum time between two orders.

    A CA that wants all renewed at once, again and again, would be kept busy by that.
    """
    left = certificate.not_valid_after_utc.timestamp() - time.time()
    return min(_HOUR, max(left, 3.0) / 3)


def retry_seconds(failure: Failure, failures: int, *, has_certificate: bool) -> float:
    """
    Return the delay after consecutive failures.

    Args:
        failure: The newest.

        failures: How many there were, at least 1.

        has_certificate: Whether there is a certificate that is valid.
    """
    longest = _LONGEST_SECONDS if has_certificate else _LONGEST_WITHOUT_SECONDS
    seconds = _FIRST_SECONDS[failure.kind] * 2.0 ** min(failures - 1, 20)
    return min(seconds, longest) * _JITTER.uniform(0.75, 1.0)


def _life(certificate: x509.Certificate) -> tuple[float, float]:
    begins = certificate.not_valid_before_utc.timestamp()
    return begins, certificate.not_valid_after_utc.timestamp() - begins
