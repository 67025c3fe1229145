# SPDX-License-Identifier: MIT
"""OCSP responses: parsing, and verification of signature, responder and dates."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import (
    ec,
    ed448,
    ed25519,
    mldsa,
    padding,
    rsa,
)
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.x509.ocsp import (
    OCSPCertStatus,
    OCSPRequestBuilder,
    OCSPResponse,
    OCSPResponseStatus,
    OCSPSingleResponse,
    load_der_ocsp_response,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from hsm_server.tls.certificates import has_signed, readable_extension_of
from hsm_server.tls.ocsp.request import Fault, Subject, UnusableError

_DIGEST_BYTES: Final = 32
"""Minimum digest size of signatures; excludes MD5, SHA-1 and SHA-224."""

_RSA_BITS: Final = 2048

_UNDERSTOOD: Final = (
    x509.BasicConstraints,
    x509.ExtendedKeyUsage,
    x509.KeyUsage,
    x509.SubjectAlternativeName,
)
"""Allowed critical extensions of a delegated responder certificate."""


def check_signature(
    response: OCSPResponse, issuer: x509.Certificate, now: datetime
) -> None:
    """
    Demand that the issuer has signed a response, or a delegate of it.

    A delegate's own certificate is not asked after: its issuer gives it out for a short
    time, and says so by id-pkix-ocsp-nocheck.

    Args:
        response: Successful.

        issuer: Issuer of the certificate in question.

        now: When a delegate's certificate must be valid, in UTC.

    Raises:
        UnusableError: *responder*, if its signer may not speak of the certificate;
            *signature*, if it has not signed this.

    Standard:
        RFC 6960, sections 3.2 and 4.2.2.2.
    """
    fault = Fault.RESPONDER
    for signer in _named_signers(response, issuer):
        if signer is not issuer and not _is_delegate(signer, issuer, now):
            continue
        if _has_signed(signer, response):
            return
        fault = Fault.SIGNATURE
    raise UnusableError(fault)


def _named_signers(
    response: OCSPResponse, issuer: x509.Certificate
) -> Iterator[x509.Certificate]:
    """Yield the certificates that match the responder ID."""
    for one in (issuer, *response.certificates):
        if response.responder_name is not None:
            is_meant = one.subject == response.responder_name
        else:
            identifier = x509.SubjectKeyIdentifier.from_public_key(one.public_key())
            # The method of RFC 5280, section 4.2.1.2 (1), is that of KeyHash, too.
            is_meant = identifier.digest == response.responder_key_hash
        if is_meant:
            yield one


def _is_delegate(
    signer: x509.Certificate, issuer: x509.Certificate, now: datetime
) -> bool:
    return (
        has_signed(issuer, signer)
        and ExtendedKeyUsageOID.OCSP_SIGNING
        in (readable_extension_of(signer, x509.ExtendedKeyUsage) or ())
        and signer.not_valid_before_utc <= now <= signer.not_valid_after_utc
        and _may_sign(signer.extensions)
    )


def _may_sign(extensions: x509.Extensions) -> bool:
    for extension in extensions:
        if extension.critical and not isinstance(extension.value, _UNDERSTOOD):
            return False
        if isinstance(extension.value, x509.KeyUsage):
            usage = extension.value
            if not (usage.digital_signature or usage.content_commitment):
                return False
    return True


def _has_signed(signer: x509.Certificate, response: OCSPResponse) -> bool:
    try:
        _verify(signer, response)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _verify(signer: x509.Certificate, response: OCSPResponse) -> None:
    key, oid = signer.public_key(), response.signature_algorithm_oid
    signature, signed = response.signature, response.tbs_response_bytes
    match key:
        case rsa.RSAPublicKey() if key.key_size >= _RSA_BITS:
            digest = _strong_digest(response)
            key.verify(signature, signed, _rsa_padding(oid, digest), digest)
        case ec.EllipticCurvePublicKey():
            key.verify(signature, signed, ec.ECDSA(_strong_digest(response)))
        case (
            ed25519.Ed25519PublicKey()
            | ed448.Ed448PublicKey()
            | mldsa.MLDSA44PublicKey()
            | mldsa.MLDSA65PublicKey()
            | mldsa.MLDSA87PublicKey()
        ):
            if oid != signer.public_key_algorithm_oid:
                raise InvalidSignature
            key.verify(signature, signed)
        case _:
            raise InvalidSignature


def _strong_digest(response: OCSPResponse) -> HashAlgorithm:
    digest = response.signature_hash_algorithm
    if digest is None or digest.digest_size < _DIGEST_BYTES:
        raise InvalidSignature
    return digest


def _rsa_padding(
    oid: x509.ObjectIdentifier, digest: HashAlgorithm
) -> padding.AsymmetricPadding:
    if oid == SignatureAlgorithmOID.RSASSA_PSS:
        return padding.PSS(padding.MGF1(digest), padding.PSS.AUTO)
    return padding.PKCS1v15()


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

        nonce: Nonce of the request; empty skips the comparison.

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
