# SPDX-License-Identifier: MIT
"""Signature check of OCSP responses."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
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
from cryptography.x509.ocsp import OCSPResponse
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from hsm_server.tls.ocsp.errors import Fault, UnusableError

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

        issuer: Of the certificate that the response is about.

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
    try:
        signer.verify_directly_issued_by(issuer)
        usages = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (
        InvalidSignature,
        UnsupportedAlgorithm,
        ValueError,
        TypeError,
        x509.ExtensionNotFound,
    ):
        return False
    return (
        ExtendedKeyUsageOID.OCSP_SIGNING in usages
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
