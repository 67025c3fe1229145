# SPDX-License-Identifier: MIT
"""MACs and randomness: ComputeMac, VerifyMac, GenerateRandom."""

from __future__ import annotations

import hmac

from hsm_core import operations as ops
from hsm_core._internal.handlers.base import (
    INLINE_BYTES,
    Answer,
    Handler,
    ProtectingHandler,
    handles,
)
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.keyring.versions import (
    check_usage,
    is_short_walk,
    require_version,
    usable_versions,
)
from hsm_core.algorithms import Algorithm
from hsm_core.errors import MacMismatchError


@handles(ops.ComputeMac)
class ComputeMacHandler(ProtectingHandler[ops.ComputeMac, ops.Mac]):
    """Compute a MAC with the current version."""

    def prepare(self, context: RequestContext[ops.ComputeMac], /) -> None:
        """Check size, usage and state."""
        limit = self._services.settings.limits.payload_bytes
        self._check_size("message", context.operation.message, limit)
        check_usage(context.key, ops.ComputeMac.usage)
        require_version(context.key, None, "ComputeMac")
        self._services.crypto.require(context.spec.algorithm)

    def protected_bytes(self, operation: ops.ComputeMac, /) -> int:
        """Return the length of the data."""
        return len(operation.message)

    def perform(self, context: RequestContext[ops.ComputeMac], /) -> Answer[ops.Mac]:
        """Compute it, at full length."""
        key, version = context.key, context.key.current_version
        handle = self._services.inventory.materials.handle(key, version)
        return Answer(
            ops.Mac(
                key_id=key.key_id,
                version=version.version,
                algorithm=Algorithm(key.algorithm),
                mac=handle.mac(context.operation.message),
            ),
            version.version,
        )


@handles(ops.VerifyMac)
class VerifyMacHandler(Handler[ops.VerifyMac, ops.Verified]):
    """Check a MAC."""

    def prepare(self, context: RequestContext[ops.VerifyMac], /) -> None:
        """Check sizes and usage."""
        limit = self._services.settings.limits.payload_bytes
        self._check_size("message", context.operation.message, limit)
        self._check_size("mac", context.operation.mac, limit)
        check_usage(context.key, ops.VerifyMac.usage)
        self._services.crypto.require(context.spec.algorithm)

    def perform(
        self, context: RequestContext[ops.VerifyMac], /
    ) -> Answer[ops.Verified]:
        """Try the versions that may verify, newest first, in constant time each."""
        operation, key = context.operation, context.key
        allowed = context.policy.allows_revoked("VerifyMac")
        for version in usable_versions(
            key, operation.version, "VerifyMac", revoked_allowed=allowed
        ):
            handle = self._services.inventory.materials.handle(key, version)
            if hmac.compare_digest(handle.mac(operation.message), operation.mac):
                return Answer(
                    ops.Verified(
                        key_id=key.key_id,
                        version=version.version,
                        algorithm=Algorithm(key.algorithm),
                    ),
                    version.version,
                )
        raise MacMismatchError

    def is_quick(self, operation: ops.VerifyMac, /) -> bool:
        """Unless many versions may have to be tried."""
        document = self._services.inventory.known(operation.key_id)
        is_short = is_short_walk(document, operation.version)
        return is_short and super().is_quick(operation)


@handles(ops.GenerateRandom)
class GenerateRandomHandler(Handler[ops.GenerateRandom, ops.RandomBytes]):
    """Hand out randomness."""

    def perform(
        self, context: RequestContext[ops.GenerateRandom], /
    ) -> Answer[ops.RandomBytes]:
        """Draw it from the operating system."""
        drawn = self._services.entropy.random_bytes(context.operation.length)
        return Answer(ops.RandomBytes(random=drawn))

    def is_quick(self, operation: ops.GenerateRandom, /) -> bool:
        """Unless much is asked for."""
        return operation.length <= INLINE_BYTES
