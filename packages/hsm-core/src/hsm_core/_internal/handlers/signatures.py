# SPDX-License-Identifier: MIT
"""Signatures, MACs and randomness."""

from __future__ import annotations

import hmac
from abc import abstractmethod
from typing import Any, ClassVar, TypeVar

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.crypto.parameters import signature_input
from hsm_core._internal.handlers.base import (
    INLINE_BYTES,
    Answer,
    Handler,
    Speed,
    UseHandler,
    handles,
)
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.keyring.documents import KeyDocument, VersionDocument
from hsm_core._internal.keyring.versions import is_short_walk, usable_versions
from hsm_core.algorithms import Algorithm, SignatureEncoding, spec
from hsm_core.errors import MacMismatchError, SignatureMismatchError, VerificationError
from hsm_core.protocols import SignatureParameters

SignOrVerify = TypeVar("SignOrVerify", ops.Sign, ops.Verify)
Check = TypeVar("Check", bound=ops.Verify | ops.VerifyMac | ops.RawVerify)
SignatureCheck = TypeVar("SignatureCheck", bound=ops.Verify | ops.RawVerify)


class SignatureDefaults:
    """Defaults of the parameters of signatures."""

    def resolve(self, operation: SignOrVerify, document: KeyDocument | None, /) -> Any:
        """Fill scheme, hash and encoding by the table."""
        if document is None:
            return operation
        row = spec(Algorithm(document.algorithm))
        if not row.schemes:
            return operation
        return msgspec.structs.replace(
            operation,
            scheme=operation.scheme or row.schemes[0],
            hash=operation.hash or (row.hashes[0] if row.hashes else None),
            encoding=operation.encoding
            or (SignatureEncoding.DER if row.coordinate_bytes else None),
        )


@handles(ops.Sign)
class SignHandler(SignatureDefaults, UseHandler[ops.Sign, ops.Signature]):
    """Sign with the current version."""

    current_for, protects = "Sign", ("message", "digest", "mu")

    def check(self, context: RequestContext[ops.Sign], /) -> None:
        """Prepare what is signed, and how."""
        operation = context.operation
        context.prepared[:] = signature_input(
            Algorithm(context.key.algorithm),
            operation.message,
            operation.digest,
            operation.mu,
            is_signing=True,
            scheme=operation.scheme,
            hash=operation.hash,
            encoding=operation.encoding,
            context=operation.context,
        )

    def perform(self, context: RequestContext[ops.Sign], /) -> Answer[ops.Signature]:
        """Sign."""
        operation, key = context.operation, context.key
        data, parameters = context.prepared
        handle = self._services.inventory.materials.handle(key, key.current_version)
        signature = handle.sign(data, parameters)
        return Answer(
            ops.Signature(
                key_id=key.key_id,
                version=key.current,
                algorithm=Algorithm(key.algorithm),
                scheme=parameters.scheme,
                signature=signature,
                hash=operation.hash,
                encoding=operation.encoding,
            ),
            key.current,
            bound=signature,
        )


class CheckHandler(UseHandler[Check, ops.Verified]):
    """
    Handler of a check that tries the versions that may have made it, newest first.

    Attributes:
        mismatch: Error if it fits none.
        checks: Field of what is checked.
    """

    mismatch: ClassVar[type[VerificationError]]
    checks: ClassVar[str]

    @abstractmethod
    def fits(self, context: RequestContext[Check], version: VersionDocument, /) -> bool:
        """Whether a version made what is checked."""

    def perform(self, context: RequestContext[Check], /) -> Answer[ops.Verified]:
        """Return the newest version that made it."""
        operation, key = context.operation, context.key
        kind = type(operation).__name__
        allowed = context.policy.allows_revoked(kind)
        for version in usable_versions(
            key, operation.version, kind, revoked_allowed=allowed
        ):
            if self.fits(context, version):
                algorithm, number = Algorithm(key.algorithm), version.version
                return Answer(
                    ops.Verified(
                        key_id=key.key_id, version=number, algorithm=algorithm
                    ),
                    number,
                    bound=getattr(operation, self.checks),
                )
        raise self.mismatch

    def speed_of(self, operation: Check, /) -> Speed:
        """Return more than for one use, where many versions may have to be tried."""
        document = self._services.inventory.known(operation.key_id)
        speed = super().speed_of(operation)
        is_short = is_short_walk(document, operation.version)
        return speed if is_short else max(speed, Speed.POOLED)


class SignatureCheckHandler(CheckHandler[SignatureCheck]):
    """Check a signature over what *context.prepared* begins with."""

    mismatch, checks = SignatureMismatchError, "signature"

    def fits(
        self, context: RequestContext[SignatureCheck], version: VersionDocument, /
    ) -> bool:
        """Whether the version's public key verifies it."""
        data: bytes
        parameters: SignatureParameters
        data, parameters = context.prepared
        materials = self._services.inventory.materials
        handle = materials.public_handle(context.key, version)
        try:
            handle.verify(data, context.operation.signature, parameters)
        except SignatureMismatchError:
            return False
        return True


@handles(ops.Verify)
class VerifyHandler(SignatureDefaults, SignatureCheckHandler[ops.Verify]):
    """Check a signature."""

    def check(self, context: RequestContext[ops.Verify], /) -> None:
        """Prepare what was signed, and how."""
        operation = context.operation
        context.prepared[:] = signature_input(
            context.spec.algorithm,
            operation.message,
            operation.digest,
            operation.mu,
            is_signing=False,
            scheme=operation.scheme,
            hash=operation.hash,
            encoding=operation.encoding,
            mgf_hash=operation.mgf_hash,
            salt_bytes=operation.salt_bytes,
            context=operation.context,
        )


@handles(ops.ComputeMac)
class ComputeMacHandler(UseHandler[ops.ComputeMac, ops.Mac]):
    """Compute a MAC with the current version."""

    current_for, protects = "ComputeMac", ("message",)

    def perform(self, context: RequestContext[ops.ComputeMac], /) -> Answer[ops.Mac]:
        """Compute it, at full length."""
        key = context.key
        handle = self._services.inventory.materials.handle(key, key.current_version)
        mac = handle.mac(context.operation.message)
        return Answer(
            ops.Mac(
                key_id=key.key_id,
                version=key.current,
                algorithm=Algorithm(key.algorithm),
                mac=mac,
            ),
            key.current,
            bound=mac,
        )


@handles(ops.VerifyMac)
class VerifyMacHandler(CheckHandler[ops.VerifyMac]):
    """Check a MAC."""

    mismatch, checks = MacMismatchError, "mac"

    def fits(
        self, context: RequestContext[ops.VerifyMac], version: VersionDocument, /
    ) -> bool:
        """Whether the version gives the same MAC, compared in constant time."""
        operation = context.operation
        handle = self._services.inventory.materials.handle(context.key, version)
        return hmac.compare_digest(handle.mac(operation.message), operation.mac)


@handles(ops.GenerateRandom)
class GenerateRandomHandler(Handler[ops.GenerateRandom, ops.RandomBytes]):
    """Return random bytes of the operating system."""

    def perform(
        self, context: RequestContext[ops.GenerateRandom], /
    ) -> Answer[ops.RandomBytes]:
        """Draw them."""
        drawn = self._services.entropy.random_bytes(context.operation.length)
        return Answer(ops.RandomBytes(random=drawn))

    def speed_of(self, operation: ops.GenerateRandom, /) -> Speed:
        """Return more where much is asked for."""
        return Speed.QUICK if operation.length <= INLINE_BYTES else Speed.POOLED
