# SPDX-License-Identifier: MIT
"""
Sessions of the web console.

Sessions are in the memory of the vault and end with its process; all nodes of a cluster
share theirs, which outlast restarts. Only the hash of a session's secret is stored. The
vault verifies the credential of the session again at each use: when the credential
ends, the session ends.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from hsm_core.errors import AuthenticationError
from hsm_core.identities import identity, same_person
from hsm_core.protocols import SharedState
from hsm_server.config.settings import ConsoleSettings
from hsm_server.identity.id_tokens import Person

_SECRET_BYTES: Final = 32
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_SWEEP_SECONDS: Final = 60.0
_MOST: Final = 4096
_MOST_OF_ONE: Final = 16
_KIND: Final = "session"
_NOTED_SECONDS: Final = 5.0
"""Seconds between uses of a session that the database hears of."""


class SessionEndedError(AuthenticationError):
    """Former session that has ended; not an attack."""


@dataclass(slots=True, repr=False)
class Session:
    """
    One sign-in.

    Attributes:
        principal: The signed-in principal.
        credential: The token of the sign-in; empty for a certificate alone.
        certificate_sha256: Fingerprint of the required client certificate; empty if
            there was none.
        person: Identity at an OpenID Connect provider, instead of a credential.
        begun_at: Start, in seconds since 1970.
        used_at: Last use, in seconds since 1970.
    """

    principal: str
    credential: str
    certificate_sha256: str
    person: Person | None
    begun_at: float
    used_at: float


class SessionTable(Protocol):
    """Sessions by the hash of their secret, bounded."""

    def add(self, digest: bytes, session: Session) -> None:
        """Add a session; at a limit, others give way."""
        ...

    def find(self, digest: bytes) -> Session | None:
        """Return a session, without changing anything; on any thread."""
        ...

    def find_again(self, digest: bytes, session: Session) -> Session | None:
        """Return a session that was found a moment ago, without waiting for anybody."""
        ...

    def note_use(self, digest: bytes, session: Session, now: float) -> None:
        """Reset the idle time of a session."""
        ...

    def remove(self, digest: bytes) -> None:
        """Remove a session, if it exists."""
        ...

    def clear(self) -> None:
        """Remove all sessions."""
        ...


class MemoryTable:
    """
    Sessions in memory; for one thread.

    Args:
        has_ended: Returns whether a session has ended at an instant.

        most: Maximum number of sessions.

        most_of_one: Maximum number per principal.
    """

    def __init__(
        self, has_ended: Callable[[Session, float], bool], most: int, most_of_one: int
    ) -> None:
        self._has_ended = has_ended
        self._most = most
        self._most_of_one = most_of_one
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._swept_at = -math.inf

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, digest: bytes, session: Session) -> None:
        """See `SessionTable.add`."""
        self._sweep(session.begun_at)
        own = [
            k
            for k, s in self._sessions.items()
            if same_person(s.principal, session.principal)
        ]
        for other in own[: max(0, len(own) - self._most_of_one + 1)]:
            del self._sessions[other]
        while len(self._sessions) >= self._most:
            self._sessions.popitem(last=False)
        self._sessions[digest] = session

    def find(self, digest: bytes) -> Session | None:
        """See `SessionTable.find`."""
        return self._sessions.get(digest)

    def find_again(self, digest: bytes, session: Session) -> Session | None:
        """See `SessionTable.find_again`."""
        return self.find(digest)

    def note_use(self, digest: bytes, session: Session, now: float) -> None:
        """See `SessionTable.note_use`."""
        session.used_at = now
        self._sessions.move_to_end(digest)

    def remove(self, digest: bytes) -> None:
        """See `SessionTable.remove`."""
        self._sessions.pop(digest, None)

    def clear(self) -> None:
        """See `SessionTable.clear`."""
        self._sessions.clear()
        self._swept_at = -math.inf  # The clock may have been set back.

    def _sweep(self, now: float) -> None:
        """Remove ended sessions, so that their tokens leave the memory."""
        if now - self._swept_at < _SWEEP_SECONDS:
            return
        self._swept_at = now
        for digest in [k for k, s in self._sessions.items() if self._has_ended(s, now)]:
            del self._sessions[digest]


class SharedTable:
    """
    Sessions that all nodes of a cluster share; read from the database at each use.

    Args:
        state: Where they lie.

        ends_at: Returns when a session ends without further use.

        most: Maximum number of sessions.

        most_of_one: Maximum number per principal.
    """

    def __init__(
        self,
        state: SharedState,
        ends_at: Callable[[Session], float],
        most: int,
        most_of_one: int,
    ) -> None:
        self._state = state
        self._ends_at = ends_at
        self._most = most
        self._most_of_one = most_of_one

    def add(self, digest: bytes, session: Session) -> None:
        """See `SessionTable.add`."""
        owner = hashlib.sha256(identity(session.principal).encode()).hexdigest()
        self._state.add(
            _KIND,
            digest.hex(),
            msgspec.msgpack.encode(session),
            self._ends_at(session),
            owner=owner,
            most_of_owner=self._most_of_one,
            most=self._most,
        )

    def find(self, digest: bytes) -> Session | None:
        """See `SessionTable.find`."""
        found = self._state.read(_KIND, digest.hex())
        if found is None:
            return None
        try:
            return msgspec.msgpack.decode(found, type=Session)
        except msgspec.DecodeError:
            # A node of another release has begun it.
            return None

    def find_again(self, digest: bytes, session: Session) -> Session | None:
        """See `SessionTable.find_again`; the request was made before it could end."""
        return session

    def note_use(self, digest: bytes, session: Session, now: float) -> None:
        """See `SessionTable.note_use`; written once in a few seconds only."""
        if now - session.used_at < _NOTED_SECONDS:
            return
        session.used_at = now
        # Only if it is there: another node may have ended it meanwhile.
        value = msgspec.msgpack.encode(session)
        self._state.replace(_KIND, digest.hex(), value, self._ends_at(session))

    def remove(self, digest: bytes) -> None:
        """See `SessionTable.remove`."""
        self._state.remove(_KIND, digest.hex())

    def clear(self) -> None:
        """See `SessionTable.clear`."""
        self._state.remove(_KIND)


class Sessions:
    """
    Bounded store of sessions; for one thread.

    At the limit the least recently used session is removed: first of the same
    principal, then of all.

    Args:
        settings: Lifetimes of sessions.

        now: Seconds since 1970, never going back.

        most: Maximum number of sessions.

        most_of_one: Maximum number per principal.

        shared: State of a cluster, which then holds the sessions.

    Attributes:
        table: Where the sessions are.
    """

    def __init__(
        self,
        settings: ConsoleSettings,
        now: Callable[[], float],
        *,
        most: int = _MOST,
        most_of_one: int = _MOST_OF_ONE,
        shared: SharedState | None = None,
    ) -> None:
        self.settings = settings
        self._now = now
        self.table: MemoryTable | SharedTable = (
            MemoryTable(self._has_ended, most, most_of_one)
            if shared is None
            else SharedTable(shared, self._idle_end, most, most_of_one)
        )

    def begin(
        self,
        principal: str,
        credential: str,
        certificate_sha256: str,
        person: Person | None = None,
    ) -> str:
        """
        Begin a session, and return its secret: 256 random bits, base64url.

        Args:
            principal: Principal of the credential.

            credential: Verified again at each use; may be empty.

            certificate_sha256: Fingerprint of the client certificate, or empty.

            person: Identity at a provider, if the user signed in there.
        """
        now = self._now()
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        session = Session(principal, credential, certificate_sha256, person, now, now)
        self.table.add(_digest(secret), session)
        return secret

    def find(
        self, secret: str, certificate_sha256: str, *, is_used: bool = True
    ) -> Session:
        """
        Return an active session.

        Args:
            secret: Secret from `begin`.

            certificate_sha256: Fingerprint of the current client certificate, or empty.

            is_used: Whether this resets its idle time.

        Raises:
            SessionEndedError: It has reached its idle or absolute timeout.
            AuthenticationError: It does not exist, or has another certificate.
        """
        if not _SECRET.match(secret):
            raise AuthenticationError
        digest = _digest(secret)
        session = self.table.find(digest)
        if session is None:
            raise AuthenticationError
        now = self._now()
        if self._has_ended(session, now):
            self.table.remove(digest)
            raise SessionEndedError
        if not hmac.compare_digest(session.certificate_sha256, certificate_sha256):
            raise AuthenticationError
        if is_used:
            self.table.note_use(digest, session, now)
        return session

    def look(self, secret: str, before: Session) -> Session:
        """
        Return a session of before if it is active, changing nothing; on any thread.

        Raises:
            SessionEndedError: It has ended.
        """
        session = self.table.find_again(_digest(secret), before)
        if session is None or self._has_ended(session, self._now()):
            raise SessionEndedError
        return session

    def end(self, secret: str) -> None:
        """End a session, if it exists."""
        self.table.remove(_digest(secret))

    def end_all(self) -> None:
        """End all sessions."""
        self.table.clear()

    def ends_at(self, session: Session) -> float:
        """Return the absolute end of a session, in seconds since 1970."""
        return session.begun_at + self.settings.absolute_seconds

    def _has_ended(self, session: Session, now: float) -> bool:
        idle = now - session.used_at >= self.settings.idle_seconds
        return idle or now >= self.ends_at(session)

    def _idle_end(self, session: Session) -> float:
        idle_end = session.used_at + self.settings.idle_seconds
        return min(idle_end, self.ends_at(session))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
