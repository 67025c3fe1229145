# SPDX-License-Identifier: MIT
"""
Vault access: the interface between front ends and vault.

A front end passes on the credentials of a visitor, and the vault authenticates them. So
a compromised front end can misuse only credentials that pass through it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from enum import StrEnum
from typing import Annotated, Any, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from hsm_core.model import Line, Record
from hsm_core.operations import AuditPage, HSMStatus, ListAuditEvents, Operation
from hsm_server.limits.buckets import Quota
from hsm_server.limits.guard import ClusterLimits

R = TypeVar("R")

Known: TypeAlias = Callable[[str], None]
"""Called with the principal once known, before the response."""


Told: TypeAlias = Callable[[Quota], None]
"""Called with the rest of the caller's rate limit, if limited."""


def tell_nobody(quota: Quota) -> None:
    """Ignore a quota."""


class Visitor(Record, frozen=True, kw_only=True):
    """
    Unauthenticated visitor.

    Attributes:
        credential: Bearer token, or empty without one; a malformed credential becomes a
            text that is never a valid token.
        certificate: Client certificate, DER, or empty.
        address: Network address of the connection.
        interface: Interface that the request came through.
        interface_claimed: What the client says of itself; see `INTERFACE_HEADER`.
        request_id: Request ID, also in log and response.
        session: Secret of a console session, instead of a credential.
        is_background: Whether a page polls by itself, which does not extend a session.
        revision: Newest change of the cluster that the client has seen.
        nonce: Marks the credential as an ID token, which must contain the nonce and is
            accepted once.
    """

    credential: str = ""
    certificate: bytes = b""
    address: Line = ""
    interface: Line = "rest"
    interface_claimed: Line = ""
    request_id: Line = ""
    session: str = ""
    is_background: bool = False
    revision: Annotated[int, Meta(ge=0, lt=10**15)] = 0
    nonce: str = ""


class How(StrEnum):
    """Method of authentication."""

    TOKEN = "token"  # noqa: S105 (no secret)
    CERTIFICATE = "certificate"
    PROVIDER = "provider"


class Who(Record, frozen=True, kw_only=True):
    """
    Authenticated identity of a visitor.

    Attributes:
        roles: Roles, in alphabetical order.
        certificate_subject: Subject of the client certificate; empty without one.
        how: Method of authentication.
        until: Latest end of the identity, seconds since 1970.
        idle_seconds: Idle timeout; 0 without a session.
    """

    principal: str
    roles: tuple[str, ...]
    certificate_subject: str = ""
    how: How
    until: float
    idle_seconds: float = 0.0


class SignedIn(Record, frozen=True, kw_only=True):
    """
    New session.

    Attributes:
        session: Its secret, for its bearer only.
    """

    session: str
    who: Who


class Reply(msgspec.Struct, frozen=True):
    """
    Reply to a use that was begun.

    Attributes:
        principal: The authenticated principal; empty if there is none.
        result: The operation's result, unless there is an error.
        error: What `VaultAccess.execute` would have raised.
        quota: The rest of the caller's rate limit, if limited.
    """

    principal: str = ""
    result: Any = None
    error: Exception | None = None
    quota: Quota | None = None


Replied: TypeAlias = Callable[[Reply], None]
"""Called once with the reply to a use, unless it was cancelled."""

CancelUse: TypeAlias = Callable[[], object]
"""Gives up the reply; what has not begun is then not done."""


class VaultAccess(Protocol):
    """
    Interface of the HSM for a front end.

    Every method raises `AuthenticationError` for an invalid credential, which is
    counted and recorded, and `UnavailableError` if the vault does not respond.

    Attributes:
        on_limits: Called with what the address limits depend on in a cluster.
    """

    on_limits: Callable[[ClusterLimits], None]

    @property
    def revision(self) -> int:
        """Newest change that the node had applied for the last response; or 0."""
        ...

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
        Execute one operation for the authenticated visitor.

        See `HSM.execute` for what travels beside it.

        Raises:
            RateLimitedError: They have asked for too much.
        """
        ...

    def begin(
        self, visitor: Visitor, operation: Operation[Any], /, replied: Replied
    ) -> CancelUse | None:
        """
        Begin a short use without options, and return how to cancel it.

        Its reply is what `execute` would have returned or raised. None means that
        nothing was begun, checked or counted, and that `execute` has to serve.

        Args:
            visitor: See `execute`.

            operation: See `execute`.

            replied: Called with the reply, never before this returns.
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
        Yield a page of the audit log, then new records.

        It ends with `AuthenticationError` when the credential is good no more.
        """
        ...

    async def who(self, visitor: Visitor, /, *, known: Known) -> Who:
        """Return the identity of a visitor, without an audit record."""
        ...

    async def sign_in(self, visitor: Visitor, /, *, known: Known) -> SignedIn:
        """Start a console session for the bearer of a credential."""
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
