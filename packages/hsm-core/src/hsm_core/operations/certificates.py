# SPDX-License-Identifier: MIT
"""Certificates: X.509 chains kept with the versions of asymmetric keys."""

from __future__ import annotations

from typing import ClassVar

from hsm_core.model import KeyId, KeyInfo, Record
from hsm_core.operations.base import (
    Effect,
    KeyReference,
    Operation,
    Route,
    VersionNumber,
    base64_text,
)

__all__ = [
    "AttachCertificates",
    "Certificate",
    "CertificateChain",
    "GetCertificates",
    "RemoveCertificates",
]


class Certificate(Record, frozen=True, kw_only=True):
    """X.509 certificate, as DER."""

    der: bytes


class CertificateChain(Record, frozen=True, kw_only=True):
    """
    Certificates of a key version.

    Attributes:
        items: That of the key first, each followed by the one that issued it; empty if
            there is none.
        pem: The same as PEM.
    """

    repr_fields: ClassVar = ("key_id", "version")

    key_id: KeyId
    version: int
    items: tuple[Certificate, ...]
    pem: str


class AttachCertificates(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Keep a certificate chain with a key version, in place of an earlier one.

    The first certificate must be for the public key of the version, and each must name
    the next one as its issuer. Signatures, dates and revocation are not verified: that
    is left to those who rely on the certificates.

    Attributes:
        chain: Certificates as PEM, or as DER, one after the other: at most 10 and
            128 KiB, and 1 MiB with those of all other versions.
        version: By default the current one.
    """

    effect: ClassVar = Effect.MUTATION
    route: ClassVar = Route(
        "PUT",
        "/keys/{key_id}/certificates",
        raw_request="chain",
        example={
            "key_id": "release-signer",
            "chain": base64_text(b"-----BEGIN CERTIFICATE-----\n"),
        },
    )

    key_id: KeyReference
    chain: bytes
    version: VersionNumber | None = None


class GetCertificates(Operation[CertificateChain], frozen=True, kw_only=True):
    """Return the certificate chain of a version, by default the current one."""

    effect: ClassVar = Effect.READ
    route: ClassVar = Route(
        "GET",
        "/keys/{key_id}/certificates",
        example={"key_id": "release-signer"},
    )

    key_id: KeyReference
    version: VersionNumber | None = None


class RemoveCertificates(Operation[KeyInfo], frozen=True, kw_only=True):
    """Remove the certificate chain of a version, by default the current one."""

    effect: ClassVar = Effect.MUTATION
    route: ClassVar = Route(
        "DELETE",
        "/keys/{key_id}/certificates",
        example={"key_id": "release-signer"},
    )

    key_id: KeyReference
    version: VersionNumber | None = None
