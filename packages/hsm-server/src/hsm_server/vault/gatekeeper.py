# SPDX-License-Identifier: MIT
"""Authentication of visitors as callers of the core."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from hsm_core.errors import AuthenticationError, HSMError, StoreUnavailableError
from hsm_core.model import Caller
from hsm_core.operations import Operation
from hsm_core.protocols import AsyncHSMGateway, SharedState, SharedTrust
from hsm_server.certificates import (
    CertificateFacts,
    certificate_facts,
    fingerprint,
    readable_facts,
    revocable_names,
)
from hsm_server.config.settings import ConsoleSettings
from hsm_server.identity.clock import FlooredClock
from hsm_server.identity.id_tokens import IDTokens, Person
from hsm_server.identity.sessions import Session, SessionEndedError, Sessions
from hsm_server.identity.token_keys import TokenTrust, TrustedNames
from hsm_server.identity.token_verifier import Identity, ReplayCache, TokenVerifier
from hsm_server.limits.buckets import ActorLimiter, Quota
from hsm_server.limits.pacing import with_pauses
from hsm_server.vault.access import How, SignedIn, Visitor, Who

T = TypeVar("T")

_CLOCK = FlooredClock()
_CERTIFICATES: Final = "certificates"
_THREADS: Final = 4
"""Threads that ask the database of a cluster for credentials."""

_PATIENCE_SECONDS: Final = 1.9
_AGAIN_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 1.0
"""Interval between checks of the credential of a live view."""


class Authenticated(NamedTuple):
    """
    Authenticated caller.

    Attributes:
        caller: The caller.
        check: Raises `AuthenticationError` once the credential no longer counts. It may
            be called on any thread; see `hsm_core.protocols.Request.check`.
        identity: Identity in the credential.
        session: Session that was shown, or None.
    """

    caller: Caller
    check: Callable[[], None]
    identity: Identity
    session: Session | None


class Gatekeeper:
    """
    Verifier of credentials; records failures.

    Args:
        gateway: The HSM, which records failures.

        trust: Keys of bearer tokens, and required claims.

        on_failure: Called for each failure.

        clock: Clock for token expiry; the system's by default.

        names: Names of the current keys, for the HSM.

        limiter: Rate limiter of callers; None is unlimited.

        console: Lifetimes of console sessions.

        people: Verifier of ID tokens, if a provider is configured.

        issuers: Trust in other issuers, whose tokens the policy maps to principals.

        shared: State of a cluster: sessions and spent tokens. None keeps them here.

        note_failure: Called with the network address of each wrong credential.

        withdrawn: What no node of a cluster accepts; None without a cluster.
    """

    def __init__(
        self,
        gateway: AsyncHSMGateway,
        trust: TokenTrust,
        on_failure: Callable[[], None],
        clock: FlooredClock = _CLOCK,
        names: TrustedNames | None = None,
        limiter: ActorLimiter | None = None,
        console: ConsoleSettings | None = None,
        people: IDTokens | None = None,
        issuers: Iterable[TokenTrust] = (),
        shared: SharedState | None = None,
        note_failure: Callable[[str], None] = lambda _: None,
        withdrawn: SharedTrust | None = None,
    ) -> None:
        self._gateway = gateway
        self._note_failure = note_failure
        self._on_failure = on_failure
        self._clock = clock
        self._names = names or TrustedNames(trust)
        self._limiter = limiter
        self._people = people
        self._sessions = Sessions(
            console or ConsoleSettings(), clock.now, shared=shared
        )
        self._shared = shared
        self._spent = ReplayCache(clock.now, shared=shared)
        self._trust = trust
        self._issuers = {other.issuer: other for other in issuers}
        self._threads = None if shared is None else ThreadPoolExecutor(_THREADS)
        self._withdrawn = withdrawn
        self._renewing = threading.Lock()
        if withdrawn is not None:
            withdrawn.on_change(self._renew)
        self._renew()

    def use(self, trust: TokenTrust) -> None:
        """
        Verify by other keys and rules; what was found good before counts no more.

        Nor does what people have agreed to with tokens of keys that are gone. Who is
        verified meanwhile is verified by the former ones or by the new, never by some
        of both.
        """
        self._trust = trust
        self._renew()

    def use_issuer(self, trust: TokenTrust) -> None:
        """Verify tokens of another issuer by other keys; see `use`."""
        self._issuers = {**self._issuers, trust.issuer: trust}
        self._renew()

    def _renew(self) -> None:
        """Verify by the keys that no node has withdrawn, from now on; on any thread."""
        with self._renewing:
            trust, *issuers = map(
                self._accepted, (self._trust, *self._issuers.values())
            )
            self._names.use(trust, *issuers)
            self._verifier = TokenVerifier(trust, self._clock.now, tuple(issuers))

    def _accepted(self, trust: TokenTrust) -> TokenTrust:
        if self._withdrawn is None:
            return trust
        return trust.without(
            self._withdrawn.withdrawn(_kind_of(trust.issuer), trust.names())
        )

    def declare(self, issuer: str = "") -> int:
        """
        Withdraw the token keys that are trusted no longer from all nodes; it waits.

        Args:
            issuer: Whose keys; empty for those of the server's own tokens.

        Returns:
            Number of trusted keys that are withdrawn, on whichever node.

        Raises:
            HSMError: It can't be done now; to be done again.
        """
        if self._withdrawn is None:
            return 0
        names = (self._issuers[issuer] if issuer else self._trust).names()
        kind = _kind_of(issuer)
        self._withdrawn.declare(kind, trusted=names)
        return len(self._withdrawn.withdrawn(kind, names))

    def declare_revoked(self, names: Collection[str]) -> None:
        """
        Refuse client certificates on all nodes; it waits.

        Args:
            names: All that are revoked, as `revocable_names`.

        Raises:
            HSMError: It can't be done now; to be done again.
        """
        if self._withdrawn is not None:
            self._withdrawn.declare(_CERTIFICATES, revoked=names)

    def on_clock_reset(self) -> None:
        """
        End what would last longer than it was meant to by a time set back.

        Sessions of a cluster end as soon as its database answers, which has them.
        """
        self._spent.restart()
        if self._threads is None:
            self._sessions.end_all()
        else:
            self._ending = asyncio.ensure_future(self._end_sessions())

    async def _end_sessions(self) -> None:
        while True:
            try:
                return await self._aside(self._sessions.end_all)
            except HSMError:
                await asyncio.sleep(_AGAIN_SECONDS)

    def public_keys(self) -> bytes:
        """Return the JWK Set of the public keys that count, as JSON."""
        return self._verifier.trust.public_keys()

    def asks_database(self, visitor: Visitor, *, spends: bool = False) -> bool:
        """Return whether `authenticate` may wait for the database of a cluster."""
        if self._threads is None:
            return False
        if visitor.session or visitor.nonce:
            return True
        return spends and self._gateway.asks_for_single_use()

    async def authenticated(
        self, visitor: Visitor, *, spends: bool = False
    ) -> Authenticated:
        """
        Return what `authenticate` does, but let nobody else wait for it.

        Raises:
            AuthenticationError: See `authenticate`.
            StoreUnavailableError: The database does not answer.
        """
        if not self.asks_database(visitor, spends=spends):
            return self.authenticate(visitor, spends=spends)
        return await self._aside(partial(self.authenticate, visitor, spends=spends))

    async def _aside(self, call: Callable[[], T]) -> T:
        """Make a call that waits for the database of a cluster in a thread."""
        if self._threads is None:
            return call()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await loop.run_in_executor(self._threads, call)
        except TimeoutError:
            raise StoreUnavailableError("The database does not answer.") from None

    def authenticate(self, visitor: Visitor, *, spends: bool = False) -> Authenticated:
        """
        Return the caller, and the check of their credential.

        The address is that of the connection, whatever headers or claims say.

        Args:
            visitor: What is shown.

            spends: Whether something is to be done, so that a token is spent by it
                where a rule wants to know.

        Raises:
            AuthenticationError: The token is missing or invalid, the certificate is
                unreadable, or a certificate alone matches no identity. The failure is
                recorded.
        """
        verifier = self._verifier
        session = self._session(visitor) if visitor.session else None
        identity = self._identity_by(visitor, session)
        shown = certificate_facts(visitor.certificate)
        caller = Caller(
            principal=identity.principal,
            roles=identity.roles,
            certificate_sha256=shown.sha256,
            certificate_subject=shown.subject,
            certificate_names=shown.names,
            source_address=visitor.address,
            interface=visitor.interface,
            interface_claimed=visitor.interface_claimed,
            request_id=visitor.request_id,
            credential_id=identity.credential_id,
            credential_key=identity.key_name,
            credential_rules=identity.rules,
            single_use=spends and self._is_first_use(visitor, identity),
        )
        check = partial(self._check, visitor, identity, verifier, session)
        return Authenticated(caller, check, identity, session)

    def _check(
        self,
        visitor: Visitor,
        before: Identity,
        verifier: TokenVerifier,
        session: Session | None,
    ) -> None:
        """
        Check that a credential still counts, and for the same; on any thread.

        Args:
            visitor: Shows the credential.

            before: Identity that it had.

            verifier: Verifier of tokens by then.

            session: Session that it showed by then.

        Raises:
            AuthenticationError: The credential has expired or was withdrawn, or counts
                for another principal or other roles.
        """
        if visitor.nonce:
            # It was accepted once, and is not accepted again.
            return
        is_own_token = visitor.credential and before.claims is None
        if is_own_token and verifier is self._verifier:
            if self._clock.now() >= before.expires_at:
                raise AuthenticationError
            return
        now = self._present_identity(visitor, session)
        if (now.principal, now.roles) != (before.principal, before.roles):
            raise AuthenticationError

    def _present_identity(self, visitor: Visitor, before: Session | None) -> Identity:
        """Return the identity without use of a session; on any thread."""
        if before is None:
            return self._identity(visitor)
        session = self._sessions.look(visitor.session, before)
        self._check_certificate(visitor)
        return self._identity_in(session, visitor)

    def _is_first_use(self, visitor: Visitor, identity: Identity) -> bool:
        if not self._gateway.asks_for_single_use():
            self._spent.forget()
            return False
        # What a session rests on serves again and again.
        rules = self._verifier.trust.rules
        is_first = self._spent.spend(identity, rules.leeway_seconds)
        return is_first and not visitor.session

    def charge(self, caller: Caller, operation: Operation[Any] | None) -> Quota | None:
        """Charge a caller; return what is left, or None where nothing is limited."""
        if self._limiter is None:
            return None
        return self._limiter.charge(caller, operation)

    async def record_failure(
        self, visitor: Visitor, error: AuthenticationError
    ) -> None:
        """
        Count and record a failure, before it is answered.

        A client that comes back to an ended session has not failed.
        """
        if isinstance(error, SessionEndedError):
            return
        self._on_failure()
        if visitor.credential or visitor.certificate or visitor.session:
            self._note_failure(visitor.address)
        stranger = _stranger(visitor, readable_facts(visitor.certificate))
        await self._gateway.record_refusal(stranger, error.code)

    async def admit(self, visitor: Visitor, *, spends: bool = False) -> Caller:
        """Return the caller; records a failure. See `admit_checked`."""
        return (await self.admit_checked(visitor, spends=spends)).caller

    async def admit_checked(
        self, visitor: Visitor, *, spends: bool = False
    ) -> Authenticated:
        """
        Return the caller, and the check of their credential; records a failure.

        Args:
            visitor: See `authenticate`.

            spends: See `authenticate`.

        Raises:
            AuthenticationError: See `authenticate`.
        """
        try:
            return await self.authenticated(visitor, spends=spends)
        except AuthenticationError as error:
            await self.record_failure(visitor, error)
            raise

    def who(self, visitor: Visitor, found: Authenticated) -> Who:
        """Return the identity of an authenticated visitor, and its end."""
        sessions, session, identity = self._sessions, found.session, found.identity
        until, idle_seconds = float("inf"), 0.0
        how = How.TOKEN if visitor.credential else How.CERTIFICATE
        if session is not None:
            until, idle_seconds = (
                sessions.ends_at(session),
                sessions.settings.idle_seconds,
            )
            how = _way_of(session)
        return Who(
            principal=identity.principal,
            roles=tuple(sorted(identity.roles)),
            certificate_subject=certificate_facts(visitor.certificate).subject,
            how=how,
            until=float(min(until, identity.expires_at)),
            idle_seconds=float(idle_seconds),
        )

    async def sign_in(self, visitor: Visitor, caller: Caller) -> SignedIn:
        """
        Begin a session, and record that.

        Args:
            visitor: Shows a credential, and no session.

            caller: Who that was found to be.

        Raises:
            AuthenticationError: A session is shown, or the credential is good no more.
            RateLimitedError: They have asked for too much.
        """
        if visitor.session:
            raise AuthenticationError
        quota = self.charge(caller, None)
        if quota is not None and quota.wait_seconds:
            raise quota.error()
        shown = fingerprint(visitor.certificate)
        await self._gateway.record_visit(caller, kind="SignIn")
        credential, person = visitor.credential, None
        if visitor.nonce:
            # The ID token was good once, and counts no more.
            credential, person = "", _person(caller)
        begin = partial(self._sessions.begin, caller.principal)
        secret = await self._aside(partial(begin, credential, shown, person))
        begun = msgspec.structs.replace(
            visitor, session=secret, credential="", nonce=""
        )
        who = self.who(begun, await self.authenticated(begun))
        return SignedIn(session=secret, who=who)

    async def sign_out(self, visitor: Visitor, caller: Caller) -> None:
        """End the session of a caller at once, and record that."""
        await self._aside(partial(self._sessions.end, visitor.session))
        await self._gateway.record_visit(caller, kind="SignOut")

    async def while_good(
        self, visitor: Visitor, pages: AsyncGenerator[T, None]
    ) -> AsyncGenerator[T, None]:
        """
        Yield the items of a generator while the visitor's credential is valid.

        Raises:
            AuthenticationError: The credential has ended, or now yields another
                principal or other roles. This is not an attempt, and not recorded.
        """
        # Nobody does anything while a view goes on by itself.
        visitor = msgspec.structs.replace(visitor, is_background=True)
        first = (await self.authenticated(visitor)).identity
        left = 0.0

        async def check() -> float:
            now = (await self.authenticated(visitor)).identity
            if (now.principal, now.roles) != (first.principal, first.roles):
                raise AuthenticationError
            return max(0.0, min(now.expires_at - self._clock.now(), _LOOK_SECONDS))

        paced = with_pauses(pages, lambda: left)
        async with contextlib.aclosing(paced):
            async for page in paced:
                left = await check()
                if page is not None:
                    yield page

    def _identity(self, visitor: Visitor) -> Identity:
        return self._identity_by(visitor, None)

    def _check_certificate(self, visitor: Visitor) -> None:
        """Refuse a client certificate that any node of the cluster has revoked."""
        if self._withdrawn is not None and visitor.certificate:
            names = revocable_names(visitor.certificate)
            if self._withdrawn.withdrawn(_CERTIFICATES, names):
                raise AuthenticationError

    def _identity_by(self, visitor: Visitor, session: Session | None) -> Identity:
        self._check_certificate(visitor)
        if session is not None:
            try:
                return self._identity_in(session, visitor)
            except AuthenticationError:
                self._sessions.end(visitor.session)
                raise SessionEndedError from None
        if not visitor.credential:
            return self.certificate_identity(visitor)
        if visitor.nonce:
            return _identity_of(self._redeemed(visitor))
        return self._named(
            self._verifier.verify(
                visitor.credential,
                certificate_sha256=fingerprint(visitor.certificate),
            )
        )

    def _identity_in(self, session: Session, visitor: Visitor) -> Identity:
        """Return the identity on which a session rests, as far as it still counts."""
        if session.person is None:
            return self._identity(_resting_on(visitor, session.credential))
        if self._people is None:
            raise AuthenticationError
        self._people.check(session.person)
        return _identity_of(session.person)

    def _named(self, identity: Identity) -> Identity:
        """Return an identity with principal and roles, by the current policy."""
        if identity.claims is None:
            return identity
        claims = identity.claims
        if self._people is not None:
            claims = self._people.without_own_audience(claims)
        known = self._gateway.identify_token(claims)
        if known is None:
            raise AuthenticationError
        return replace(
            identity,
            principal=known.principal,
            roles=known.roles,
            rules=known.credential_rules,
        )

    def _redeemed(self, visitor: Visitor) -> Person:
        if self._people is None:
            raise AuthenticationError
        return self._people.redeem(visitor.credential, visitor.nonce, self._shared)

    def certificate_identity(self, visitor: Visitor) -> Identity:
        """
        Return the identity of a client certificate in the current policy.

        That the peer has its private key is the front end's word: it has seen the
        handshake.

        Raises:
            AuthenticationError: The certificate is missing or expired, matches no
                identity or several, or certificate authentication is off.
        """
        shown = certificate_facts(visitor.certificate)
        known = None
        if shown.sha256:
            known = self._gateway.identify(_stranger(visitor, shown))
        if known is None or not shown.begins_at <= self._clock.now() <= shown.ends_at:
            raise AuthenticationError
        return Identity(
            principal=known.principal,
            roles=known.roles,
            credential_id=f"x5t#S256:{shown.sha256[:16]}",
            expires_at=shown.ends_at,
            not_before=shown.begins_at,
            certificate_sha256=frozenset({shown.sha256}),
            key_name=known.credential_key,
        )

    def _session(self, visitor: Visitor) -> Session:
        if visitor.credential:
            # Which of the two would count?
            raise AuthenticationError
        return self._sessions.find(
            visitor.session,
            fingerprint(visitor.certificate),
            is_used=not visitor.is_background,
        )


def _kind_of(issuer: str) -> str:
    """Return the kind of token keys in `hsm_core.protocols.SharedTrust`."""
    return f"token keys of {issuer}" if issuer else "token keys"


def _stranger(visitor: Visitor, shown: CertificateFacts) -> Caller:
    """Return the facts of an unauthenticated visitor."""
    return Caller(
        principal="",
        roles=frozenset(),
        certificate_sha256=shown.sha256,
        certificate_subject=shown.subject,
        certificate_names=shown.names,
        source_address=visitor.address,
        interface=visitor.interface,
        interface_claimed=visitor.interface_claimed,
        request_id=visitor.request_id,
    )


def _resting_on(visitor: Visitor, credential: str) -> Visitor:
    """Return a visitor with what a session rests on in its place."""
    return msgspec.structs.replace(visitor, credential=credential, session="")


def _way_of(session: Session) -> How:
    if session.person is not None:
        return How.PROVIDER
    return How.TOKEN if session.credential else How.CERTIFICATE


def _person(caller: Caller) -> Person:
    """Return the person in an ID token, for a session."""
    return Person(
        caller.principal, caller.roles, caller.credential_id, caller.credential_key
    )


def _identity_of(person: Person) -> Identity:
    """Return a person as if a token of their own had named them, without an end."""
    return Identity(
        principal=person.principal,
        roles=person.roles,
        credential_id=person.credential_id,
        expires_at=math.inf,
        not_before=-1,
        certificate_sha256=frozenset(),
        key_name=person.key_name,
    )
