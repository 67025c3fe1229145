# SPDX-License-Identifier: MIT
"""From what a visitor shows to the caller that the core knows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from hsm_core.errors import AuthenticationError
from hsm_core.model import Caller
from hsm_core.protocols import AsyncHSMGateway
from hsm_server.access import Visitor
from hsm_server.clock import FlooredClock
from hsm_server.settings import TokenRules
from hsm_server.tokens import TokenVerifier

__all__ = ["Gatekeeper"]

_CLOCK = FlooredClock()


class Gatekeeper:
    """
    Verifies credentials, and has failures recorded.

    Args:
        gateway: Where failures are recorded.

        jwt_secret: HS256 key of bearer tokens, at least 32 bytes.

        rules: What a token must say.

        on_failure: Is called for each failure.

        clock: Time by which tokens expire; the system's by default.
    """

    def __init__(
        self,
        gateway: AsyncHSMGateway,
        jwt_secret: bytes,
        rules: TokenRules,
        on_failure: Callable[[], None],
        clock: FlooredClock = _CLOCK,
    ) -> None:
        self._gateway = gateway
        self._rules = rules
        self._on_failure = on_failure
        self._clock = clock
        self.use_secret(jwt_secret)

    def use_secret(self, jwt_secret: bytes) -> None:
        """Verify by another secret; what was found good before counts no more."""
        self._verifier = TokenVerifier(jwt_secret, self._rules, self._clock.now)

    def caller(self, visitor: Visitor) -> Caller:
        """
        Return who asks.

        The address is that of the connection, whatever headers or claims say.

        Raises:
            AuthenticationError: No token, or no good one; have it recorded.
        """
        fingerprint = _fingerprint(visitor.certificate)
        if not visitor.credential:
            raise AuthenticationError
        identity = self._verifier.verify(
            visitor.credential, certificate_sha256=fingerprint
        )
        return Caller(
            principal=identity.principal,
            roles=identity.roles,
            credential_id=identity.credential_id,
            certificate_sha256=fingerprint,
            source_address=visitor.address,
            request_id=visitor.request_id,
        )

    async def record_failure(
        self, visitor: Visitor, error: AuthenticationError
    ) -> None:
        """Count and record a failure, before it is answered."""
        self._on_failure()
        unknown = Caller(
            principal="",
            roles=frozenset(),
            certificate_sha256=_fingerprint(visitor.certificate),
            source_address=visitor.address,
            request_id=visitor.request_id,
        )
        await self._gateway.record_refusal(unknown, error.code)

    async def admit(self, visitor: Visitor) -> Caller:
        """
        Return who asks; a failure is recorded.

        Raises:
            AuthenticationError: See `caller`.
        """
        try:
            return self.caller(visitor)
        except AuthenticationError as error:
            await self.record_failure(visitor, error)
            raise


def _fingerprint(certificate: bytes) -> str:
    return hashlib.sha256(certificate).hexdigest() if certificate else ""
