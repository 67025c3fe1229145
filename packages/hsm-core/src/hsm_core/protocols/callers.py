# SPDX-License-Identifier: MIT
"""HSM interfaces: bound to one caller, and for any caller."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from hsm_core.model import Caller, PolicyIdentity, TokenClaims
from hsm_core.operations.audit import AuditPage, ListAuditEvents
from hsm_core.operations.base import Operation
from hsm_core.operations.service import HSMStatus

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "HSM",
    "AsyncHSM",
    "AsyncHSMGateway",
    "HSMGateway",
    "LiveHSM",
    "Request",
]

R = TypeVar("R")


class Request(msgspec.Struct, frozen=True):
    """
    Request: caller, operation and options.

    Attributes:
        idempotency_key: For mutations only.
        approval_id: The approval that it is to be done under. Left empty, it is found:
            one of the same person for the same operation.
        expected_generation: The generation that the key must be at, for mutations of
            a key that is there; 0 is any.
        check: Called under the audit log's lock, immediately before a use, the intent
            of a change or a consent is recorded: raises the error with which the
            caller's credential would be refused by then. It must not wait, nor touch
            the audit log.
        revision: For an event loop on a node of a cluster: number of a change that it
            applies first. A number above all changes is ignored.
    """

    caller: Caller
    operation: Operation[Any]
    idempotency_key: str | None = None
    approval_id: str = ""
    expected_generation: int = 0
    check: Callable[[], None] | None = None
    revision: int = 0


class HSM(Protocol):
    """HSM for one caller, blocking."""

    def execute(
        self,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None = None,
        approval_id: str = "",
        expected_generation: int = 0,
    ) -> R:
        """
        Execute one operation.

        Args:
            operation: What to do.

            idempotency_key: For mutations: 1 to 128 visible ASCII characters. The same
                key with the same operation gives the same answer and does it once.

            approval_id: The approval that it is to be done under, if it needs one: a
                UUID in lower-case canonical form. Left empty, it is found: one of the
                same person for the same operation.

            expected_generation: For mutations of a key that is there: the generation
                that it must be at (`KeyInfo.generation`), or else nothing is done; 0
                is any. What was done before under the same idempotency key is
                answered again, whatever the generation is by then.

        Returns:
            The operation's result; it is durable when this returns.

        Raises:
            HSMError: Base of all documented errors.
        """
        ...


class AsyncHSM(Protocol):
    """`HSM` for an event loop, which it never blocks for long."""

    async def execute(
        self,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None = None,
        approval_id: str = "",
        expected_generation: int = 0,
    ) -> R:
        """Execute one operation; see `HSM.execute`."""
        ...


class LiveHSM(AsyncHSM, Protocol):
    """`AsyncHSM` whose audit log can be followed."""

    def follow(self, operation: ListAuditEvents, /) -> AsyncGenerator[AuditPage, None]:
        """
        Return a live view of the trail: one recorded operation, with events.

        Nothing is done before the first page is asked for. That page is what executing
        the operation gives, with *follow* set; the record of it is durable by then, and
        no more of the view is recorded. The pages after it hold every later event that
        passes the same filters, once, in order, within about a quarter of a second of
        when it is durable; none is empty, and none holds more than *limit* events. If
        the view falls behind a prune it goes on with the oldest record that is left.

        It ends when it is closed. Who cancels a wait for the next page ends it, too;
        its ``next_seq`` is where another view may go on. What the caller may do is
        asked once, at the beginning.

        In a cluster, a view without *start_seq* and *log_id* shows the records of all
        logs, each once, and those of one log in their order. Records that it finds
        together are in order of time; one that another node writes late comes late.
        ``next_cursor`` is where another view may go on.

        Args:
            operation: What to show; *ascending* must be true. The newest record's
                sequence number plus one as *start_seq* shows what is recorded from
                now on; in a cluster, ``"now"`` as *cursor* does.

        Raises:
            HSMError: From the first page: whatever executing the operation raises.
            OverloadedError: From the first page: too many views follow the trail;
                nothing was done.
            AuditUnavailableError: The trail can't be read.
            AuditTamperedError: A record is bad.
            UnavailableError: The HSM was closed.
        """
        ...


class HSMGateway(Protocol):
    """Open HSM, not yet bound to a caller."""

    def act_as(self, caller: Caller, /) -> HSM:
        """
        Return the HSM bound to a caller.

        Raises:
            InvalidInputError: A field of *caller* breaks its limits.
        """
        ...

    def asks_for_single_use(self) -> bool:
        """Return whether a rule in force distinguishes tokens that were used."""
        ...

    def identify(self, caller: Caller, /) -> PolicyIdentity | None:
        """
        Return the principal of a client certificate, under the policy in force.

        Args:
            caller: Known facts of the caller; the principal may be empty.

        Returns:
            None if it names nobody, or if certificates alone name nobody here
            (`Settings.certificate_identities`).

        Raises:
            AuthenticationError: It names several people.
        """
        ...

    def identify_token(self, token: TokenClaims, /) -> PolicyIdentity | None:
        """
        Return the principal of a token, under the policy in force.

        Args:
            token: Claims of a token that the caller of this method has verified.

        Returns:
            None if no identity rule of the policy matches.

        Raises:
            AuthenticationError: The rules that match name several principals, or a
                claim names a principal who has other credentials in the policy.
        """
        ...

    def record_refusal(
        self,
        caller: Caller,
        code: str,
        /,
        *,
        kind: str = "Authenticate",
        key_id: str = "",
    ) -> None:
        """
        Record a request that was rejected before it became an operation.

        Meant for failed authentication, and for bodies that can't be read. Above a
        budget, refusals are counted and the count recorded, so that a flood can't fill
        the trail. Never raises: if the trail can't be written, nothing is lost but
        the record of something that did not happen.

        Args:
            caller: Known facts of the caller; the principal may be empty.

            code: Code of the error that was answered.

            kind: Name of the operation that was asked for.

            key_id: The key that was named, as it was sent.
        """
        ...

    def record_visit(self, caller: Caller, /, *, kind: str) -> None:
        """
        Record a sign-in or sign-out.

        Never raises: if the trail can't be written, people must still be able to come
        and see why.

        Args:
            caller: Authenticated caller.

            kind: ``SignIn`` or ``SignOut``.
        """
        ...


class AsyncHSMGateway(Protocol):
    """`HSMGateway` for an event loop."""

    @property
    def revision(self) -> int:
        """Number of the newest change of the cluster that is applied here, or 0."""
        ...

    def asks_for_single_use(self) -> bool:
        """See `HSMGateway.asks_for_single_use`."""
        ...

    def identify(self, caller: Caller, /) -> PolicyIdentity | None:
        """See `HSMGateway.identify`."""
        ...

    def identify_token(self, token: TokenClaims, /) -> PolicyIdentity | None:
        """See `HSMGateway.identify_token`."""
        ...

    def act_as(self, caller: Caller, /) -> LiveHSM:
        """Return the HSM bound to a caller."""
        ...

    def execute_many(self, requests: Sequence[Request], /) -> list[asyncio.Future[Any]]:
        """
        Begin several requests, of any callers, on the running event loop.

        Quick ones are computed before this returns, and recorded with one append and
        one sync; the others run on their own, and hold nobody up.

        Returns:
            A future for each request, in the same order. It gives the operation's
            result or raises as `HSM.execute` does. Who cancels it gives up the answer;
            what was not begun is then never done.
        """
        ...

    async def status(self) -> HSMStatus:
        """
        Return the health of the HSM, for health checks and metrics.

        The HSM asks itself, so that no grant to a role is needed.

        Raises:
            HSMError: A rule denies `Status` to everybody, or the HSM is closed.
        """
        ...

    async def record_refusal(
        self,
        caller: Caller,
        code: str,
        /,
        *,
        kind: str = "Authenticate",
        key_id: str = "",
    ) -> None:
        """See `HSMGateway.record_refusal`."""
        ...

    async def record_visit(self, caller: Caller, /, *, kind: str) -> None:
        """See `HSMGateway.record_visit`."""
        ...
