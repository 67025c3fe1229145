# SPDX-License-Identifier: MIT
"""OCSP response, verified."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.x509.ocsp import (
    OCSPCertStatus,
    OCSPRequestBuilder,
    OCSPResponse,
    OCSPResponseStatus,
    OCSPSingleResponse,
    load_der_ocsp_response,
)

from hsm_server.tls.ocsp.errors import Fault, UnusableError
from hsm_server.tls.ocsp.signature import check_signature
from hsm_server.tls.ocsp.subject import Subject

MAX_RESPONSE_BYTES: Final = 64 * 1024
"""Maximum size of a response; one with post-quantum signatures takes 16 KiB."""

_SKEW: Final = timedelta(minutes=5)
"""Tolerated clock difference of a responder."""

_UNDATED: Final = timedelta(hours=1)
"""Lifetime of a response without *nextUpdate*."""

_FAULTS: Final = {
    OCSPResponseStatus.MALFORMED_REQUEST: Fault.MALFORMED_REQUEST,
    OCSPResponseStatus.INTERNAL_ERROR: Fault.INTERNAL_ERROR,
    OCSPResponseStatus.TRY_LATER: Fault.TRY_LATER,
    OCSPResponseStatus.SIG_REQUIRED: Fault.SIG_REQUIRED,
    OCSPResponseStatus.UNAUTHORIZED: Fault.UNAUTHORIZED,
}


class Status(StrEnum):
    """Status of a certificate."""

    GOOD = "good"
    REVOKED = "revoked"


_STATUSES: Final = {
    OCSPCertStatus.GOOD: Status.GOOD,
    OCSPCertStatus.REVOKED: Status.REVOKED,
}


@dataclass(frozen=True, slots=True)
class VerifiedResponse:
    """
    Authentic and current OCSP response.

    Attributes:
        status: Status of the certificate.
        this_update: Time of the status, in UTC.
        expires_at: Expiry of the response, in UTC.
        der: OCSPResponse, as received.
    """

    status: Status
    this_update: datetime
    expires_at: datetime
    der: bytes = field(repr=False)


def check_response(
    der: bytes, subject: Subject, now: datetime, nonce: bytes = b""
) -> VerifiedResponse:
    """
    Return the verified status in a response.

    A responder with precomputed responses omits the nonce. Then only the times show
    that the response is not replayed.

    Args:
        der: Bytes from anywhere.

        subject: Which certificate was asked after.

        now: In UTC. *thisUpdate* may be 5 minutes later. *nextUpdate* must be later;
            where there is none, it counts as an hour after *thisUpdate*.

        nonce: What was sent; empty compares none.

    Raises:
        UnusableError: Anything about it is wrong, or the certificate is unknown to it.

    Standard:
        RFC 6960, section 3.2; RFC 9654 (nonce).
    """
    if len(der) > MAX_RESPONSE_BYTES:
        raise UnusableError(Fault.TOO_LARGE)
    try:
        return _checked(der, subject, now, nonce)
    except UnusableError:
        raise
    except Exception:  # A parser may raise anything for untrusted bytes.
        raise UnusableError(Fault.GARBAGE) from None


def _checked(
    der: bytes, subject: Subject, now: datetime, nonce: bytes
) -> VerifiedResponse:
    response = load_der_ocsp_response(der)
    fault = _FAULTS.get(response.response_status)
    if fault is not None:
        raise UnusableError(fault)
    single = _single_about(subject, response)
    check_signature(response, subject.issuer, now)
    _check_extensions(response, nonce)
    expires_at = _expiry_of(single)
    _check_times(response, single, expires_at, now)
    status = _STATUSES.get(single.certificate_status)
    if status is None:
        raise UnusableError(Fault.UNKNOWN)
    return VerifiedResponse(status, single.this_update_utc, expires_at, der)


def _check_extensions(response: OCSPResponse, nonce: bytes) -> None:
    for extension in response.extensions:
        if isinstance(extension.value, x509.OCSPNonce):
            if nonce and not hmac.compare_digest(extension.value.nonce, nonce):
                raise UnusableError(Fault.NONCE)
        elif extension.critical:
            raise UnusableError(Fault.EXTENSION)


def _single_about(subject: Subject, response: OCSPResponse) -> OCSPSingleResponse:
    """Return the one entry about a certificate; two of it contradict each other."""
    found = [one for one in response.responses if _is_about(subject, one)]
    if len(found) != 1:
        raise UnusableError(Fault.OTHER_CERTIFICATE)
    return found[0]


def _is_about(subject: Subject, single: OCSPSingleResponse) -> bool:
    if single.serial_number != subject.certificate.serial_number:
        return False
    name_hash, key_hash = _issuer_hashes(subject, single.hash_algorithm)
    return single.issuer_name_hash == name_hash and single.issuer_key_hash == key_hash


def _issuer_hashes(subject: Subject, algorithm: HashAlgorithm) -> tuple[bytes, bytes]:
    request = (
        OCSPRequestBuilder()
        .add_certificate(subject.certificate, subject.issuer, algorithm)
        .build()
    )
    return request.issuer_name_hash, request.issuer_key_hash


def _expiry_of(single: OCSPSingleResponse) -> datetime:
    if single.next_update_utc is None:
        return single.this_update_utc + _UNDATED
    return single.next_update_utc


def _check_times(
    response: OCSPResponse,
    single: OCSPSingleResponse,
    expires_at: datetime,
    now: datetime,
) -> None:
    if max(response.produced_at_utc, single.this_update_utc) > now + _SKEW:
        raise UnusableError(Fault.FUTURE)
    if expires_at <= now or expires_at <= single.this_update_utc:
        raise UnusableError(Fault.STALE)
