# SPDX-License-Identifier: MIT
"""Certificates of key versions: AttachCertificates, GetCertificates, and removal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.crypto.certificates import (
    chain_pem,
    check_subject_key,
    read_chain,
)
from hsm_core._internal.handlers.base import Answer, Handler, Plan, handles
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.handlers.key_creation import KeyMutation
from hsm_core._internal.keyring.documents import KeyDocument, VersionDocument
from hsm_core._internal.keyring.versions import numbered_version, with_versions
from hsm_core.errors import InvalidInputError, KeyStateError, UnsupportedOperationError
from hsm_core.model import KeyState

_MAX_KEY_BYTES: Final = 1024 * 1024
"""Certificates of a key together, so that its document can always change state."""

_ENDING: Final = frozenset({KeyState.PURGE_SCHEDULED, KeyState.DESTROYED})


def check_fit(
    others: Iterable[VersionDocument], chain: tuple[bytes, ...], *, field: str
) -> None:
    """
    Check that a key has room for a certificate chain.

    Args:
        others: The other versions of the key.

        chain: The chain.

        field: Field of the operation that brings it.

    Raises:
        InvalidInputError: The certificates of all versions would be too long.
    """
    chains = (chain, *(version.certificates for version in others))
    size = sum(len(der) for found in chains for der in found)
    if size > _MAX_KEY_BYTES:
        raise InvalidInputError(
            f"{field}: the certificates of all versions of a key must have at most "
            f"{_MAX_KEY_BYTES} bytes together, got {size}. Remove those of old "
            "versions.",
            field=field,
        )


Change = TypeVar("Change", ops.AttachCertificates, ops.RemoveCertificates)


class _CertificateMutation(KeyMutation[Change]):
    """A change of the certificate chain of one version."""

    def resolve(self, operation: Change, document: KeyDocument | None, /) -> Change:
        """Name the version, so that an approval is for this one."""
        if operation.version is not None or document is None:
            return operation
        return msgspec.structs.replace(operation, version=document.current)

    def _planned(
        self, context: RequestContext[Change], certificates: tuple[bytes, ...]
    ) -> Plan:
        document, wanted = context.key, _named(context)
        after = msgspec.structs.replace(wanted, certificates=certificates)
        versions = (after if v is wanted else v for v in document.versions)
        now = self._services.clock_guard.now()
        return Plan(with_versions(document, versions, now), wanted.version)


@handles(ops.AttachCertificates)
class AttachCertificatesHandler(_CertificateMutation[ops.AttachCertificates]):
    """Keep a certificate chain with a version."""

    def prepare(self, context: RequestContext[ops.AttachCertificates], /) -> None:
        """Refuse symmetric keys, ended versions, chains of other keys, and too many."""
        _require_public_key(context)
        version = _named(context)
        if version.state in _ENDING:
            raise KeyStateError(
                f"Version {version.version} is {version.state}; no certificate can be "
                "attached to it.",
                state=version.state.value,
                version=version.version,
            )
        chain = read_chain(context.operation.chain)
        check_subject_key(chain[0], version.public_der)
        others = (v for v in context.key.versions if v is not version)
        check_fit(others, chain, field="chain")
        context.prepared = [chain]

    def plan(self, context: RequestContext[ops.AttachCertificates], /) -> Plan:
        """Replace the chain of the version."""
        (chain,) = context.prepared
        return self._planned(context, chain)


@handles(ops.RemoveCertificates)
class RemoveCertificatesHandler(_CertificateMutation[ops.RemoveCertificates]):
    """Remove the certificate chain of a version."""

    def prepare(self, context: RequestContext[ops.RemoveCertificates], /) -> None:
        """Refuse a version without certificates."""
        version = _named(context)
        if not version.certificates:
            raise KeyStateError(
                f"Version {version.version} has no certificates.",
                version=version.version,
            )

    def plan(self, context: RequestContext[ops.RemoveCertificates], /) -> Plan:
        """Leave the version without a chain."""
        return self._planned(context, ())


@handles(ops.GetCertificates)
class GetCertificatesHandler(Handler[ops.GetCertificates, ops.CertificateChain]):
    """Show the certificate chain of a version."""

    def prepare(self, context: RequestContext[ops.GetCertificates], /) -> None:
        """Refuse symmetric keys."""
        _require_public_key(context)

    def perform(
        self, context: RequestContext[ops.GetCertificates], /
    ) -> Answer[ops.CertificateChain]:
        """Show it as DER and PEM."""
        version = _named(context)
        return Answer(
            ops.CertificateChain(
                key_id=context.key.key_id,
                version=version.version,
                items=tuple(ops.Certificate(der=der) for der in version.certificates),
                pem=chain_pem(version.certificates),
            ),
            version.version,
        )


def _require_public_key(
    context: RequestContext[ops.AttachCertificates]
    | RequestContext[ops.GetCertificates],
) -> None:
    if not context.spec.is_asymmetric:
        raise UnsupportedOperationError(
            f"key_id: {context.spec.algorithm} keys have no certificates.",
            field="key_id",
        )


def _named(
    context: RequestContext[ops.AttachCertificates]
    | RequestContext[ops.RemoveCertificates]
    | RequestContext[ops.GetCertificates],
) -> VersionDocument:
    return numbered_version(
        context.key, context.operation.version or context.key.current
    )
