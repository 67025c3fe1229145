# SPDX-License-Identifier: MIT
"""
What a front end may ask of the vault: the seam between the network and the keys.

A front end passes on what a visitor has shown; who that is, the vault decides. So a
front end that was taken over can misuse credentials that pass through it, and nothing
more.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from enum import StrEnum
from typing import Protocol, TypeAlias, TypeVar

from hsm_core.model import Line, Record
from hsm_core.operations import (
    AuditPage,
    HSMStatus,
    ListAuditEvents,
    Operation,
)
from hsm_server.limits.quota import Quota

R = TypeVar("R")

Known: TypeAlias = Callable[[str], None]
"""Is told the principal as soon as that is known, whatever the answer will be."""


Told: TypeAlias = Callable[[Quota], None]
"""Is told what is left to the principal, where that is limited."""


def tell_nobody(quota: Quota) -> None:
    """Take no note of a quota."""


class Visitor(Record, frozen=True, kw_only=True):
    """
    Somebody whose identity nobody has checked yet.

    Attributes:
        credential: Bearer token, or empty where none is shown; what is shown and is
            none is a text that no token is.
        certificate: Certificate of the TLS peer, DER, or empty.
        address: Network address of the connection.
        request_id: Ties the trail to log and answer.
        session: Secret of a session of the console, in the place of a credential.
        is_background: Whether a page asks by itself, which keeps no session alive.
        nonce: Makes the credential an ID token, which must name it, and is good once.
    """

    credential: str = ""
    certificate: bytes = b""
    address: Line = ""
    request_id: Line = ""
    session: str = ""
    is_background: bool = False
    nonce: str = ""


class How(StrEnum):
    """What somebody has shown to be let in."""

    TOKEN = "token"  # noqa: S105 (no secret)
    CERTIFICATE = "certificate"
    PROVIDER = "provider"


class Who(Record, frozen=True, kw_only=True):
    """
    Who a visitor is, as the vault has found.

    Attributes:
        roles: In the order of their names.
        certificate_subject: Of the certificate that was shown; empty without one.
        how: What the identity rests on.
        until: When it ends at the latest, seconds since 1970.
        idle_seconds: After how long without use it ends; 0 where there is no session.
    """

    principal: str
    roles: tuple[str, ...]
    certificate_subject: str = ""
    how: How
    until: float
    idle_seconds: float = 0.0


class SignedIn(Record, frozen=True, kw_only=True):
    """
    A new session.

    Attributes:
        session: Its secret, which its bearer alone may have.
    """

    session: str
    who: Who


class VaultAccess(Protocol):
    """
    The HSM as a front end sees it.

    Every method raises `AuthenticationError` where the credential is not good, which is
    counted and recorded, and `UnavailableError` where the vault can't be reached.
    """

    async def greet(self, visitor: Visitor, /, *, known: Known) -> None:
        """
        Check a credential before much is read from its bearer.

        It may be taken for good that was good a moment ago: this decides what is read,
        never what is done.
        """
        ...

    async def execute(
        self,
        visitor: Visitor,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None,
        known: Known,
        approval_id: str = "",
        expected_generation: int = 0,
        told: Told = tell_nobody,
    ) -> R:
        """
        Execute one operation for whoever the visitor turns out to be.

        See `HSM.execute` for what travels beside it.

        Raises:
            RateLimitedError: They have asked for too much.
        """
        ...

    async def refuse(
        self, visitor: Visitor, code: str, /, *, kind: str, key_id: str, known: Known
    ) -> None:
        """Record that a request was refused before it became an operation."""
        ...

    def follow(
        self, visitor: Visitor, operation: ListAuditEvents, /, *, known: Known
    ) -> AsyncGenerator[AuditPage, None]:
        """
        Give a page of the trail, and then what is recorded later.

        It ends with `AuthenticationError` when the credential is good no more.
        """
        ...

    async def who(self, visitor: Visitor, /, *, known: Known) -> Who:
        """Return who a visitor is, without a record."""
        ...

    async def sign_in(self, visitor: Visitor, /, *, known: Known) -> SignedIn:
        """Begin a session of the console for whoever shows a credential."""
        ...

    async def sign_out(self, visitor: Visitor, /, *, known: Known) -> None:
        """End the session of a visitor."""
        ...

    async def token_keys(self) -> bytes:
        """Return the public keys of tokens as a JWK Set (JSON), for anybody."""
        ...

    async def status(self) -> HSMStatus:
        """Return the health of the HSM, without a visitor and without a record."""
        ...
