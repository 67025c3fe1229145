# SPDX-License-Identifier: MIT
"""From what a visitor shows to the caller that the core knows."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncGenerator, Callable
from typing import Final, TypeVar

from hsm_core.errors import AuthenticationError
from hsm_core.model import Caller
from hsm_core.protocols import AsyncHSMGateway
from hsm_server.access import Visitor
from hsm_server.clock import FlooredClock
from hsm_server.pacing import with_pauses
from hsm_server.settings import TokenRules
from hsm_server.tokens import Identity, TokenKey, TokenVerifier

__all__ = ["Gatekeeper"]

T = TypeVar("T")

_CLOCK = FlooredClock()
_LOOK_SECONDS: Final = 1.0
"""How often it is asked whether a credential is still good: secrets are replaced."""


class Gatekeeper:
    """
    Verifies credentials, and has failures recorded.

    Args:
        gateway: Where failures are recorded.

        jwt_secret: HS256 key of bearer tokens, at least 32 bytes.

        rules: What a token must say.

        on_failure: Is called for each failure.

        clock: Time by which tokens expire; the system's by default.

        token_key: Is told which secret counts, and names it to the HSM.
    """

    def __init__(
        self,
        gateway: AsyncHSMGateway,
        jwt_secret: bytes,
        rules: TokenRules,
        on_failure: Callable[[], None],
        clock: FlooredClock = _CLOCK,
        token_key: TokenKey | None = None,
    ) -> None:
        self._gateway = gateway
        self._rules = rules
        self._on_failure = on_failure
        self._clock = clock
        self._token_key = token_key or TokenKey(jwt_secret)
        self.use_secret(jwt_secret)

    def use_secret(self, jwt_secret: bytes) -> None:
        """
        Verify by another secret; what was found good before counts no more.

        Nor does what people have agreed to with tokens of the one before.
        """
        self._token_key.use(jwt_secret)
        self._verifier = TokenVerifier(jwt_secret, self._rules, self._clock.now)

    def caller(self, visitor: Visitor) -> Caller:
        """
        Return who asks.

        The address is that of the connection, whatever headers or claims say.

        Raises:
            AuthenticationError: No token, or no good one; have it recorded.
        """
        identity = self._identity(visitor)
        return Caller(
            principal=identity.principal,
            roles=identity.roles,
            credential_id=identity.credential_id,
            credential_key=self._token_key.name,
            certificate_sha256=_fingerprint(visitor.certificate),
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

    async def while_good(
        self, visitor: Visitor, pages: AsyncGenerator[T, None]
    ) -> AsyncGenerator[T, None]:
        """
        Give what a generator gives as long as the visitor's credential is good.

        Raises:
            AuthenticationError: It is good no more; that is no attempt, and not
                recorded.
        """
        paced = with_pauses(pages, lambda: self._seconds_left(visitor))
        async with contextlib.aclosing(paced):
            async for page in paced:
                self._seconds_left(visitor)
                if page is not None:
                    yield page

    def _seconds_left(self, visitor: Visitor) -> float:
        """Return until when to look at a credential again."""
        left = self._identity(visitor).expires_at - self._clock.now()
        return max(0.0, min(left, _LOOK_SECONDS))

    def _identity(self, visitor: Visitor) -> Identity:
        if not visitor.credential:
            raise AuthenticationError
        return self._verifier.verify(
            visitor.credential,
            certificate_sha256=_fingerprint(visitor.certificate),
        )


def _fingerprint(certificate: bytes) -> str:
    return hashlib.sha256(certificate).hexdigest() if certificate else ""
