# SPDX-License-Identifier: MIT
"""
Sessions of the web console.

Sessions are in the memory of the vault and end with its process. The vault stores only
the hash of a session's secret. It verifies the credential of the session again at each
use: when the credential ends, the session ends.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hsm_core.errors import AuthenticationError
from hsm_core.identities import same_person
from hsm_server.config.settings import ConsoleSettings
from hsm_server.identity.id_tokens import Person

_SECRET_BYTES: Final = 32
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_SWEEP_SECONDS: Final = 60.0
_MOST: Final = 4096
_MOST_OF_ONE: Final = 16


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
    """

    def __init__(
        self,
        settings: ConsoleSettings,
        now: Callable[[], float],
        *,
        most: int = _MOST,
        most_of_one: int = _MOST_OF_ONE,
    ) -> None:
        self.settings = settings
        self._now = now
        self._most = most
        self._most_of_one = most_of_one
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._swept_at = now()

    def __len__(self) -> int:
        return len(self._sessions)

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
        self._sweep(now)
        own = [
            k for k, s in self._sessions.items() if same_person(s.principal, principal)
        ]
        for digest in own[: max(0, len(own) - self._most_of_one + 1)]:
            del self._sessions[digest]
        while len(self._sessions) >= self._most:
            self._sessions.popitem(last=False)
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        self._sessions[_digest(secret)] = Session(
            principal, credential, certificate_sha256, person, now, now
        )
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
        session = self._sessions.get(digest)
        if session is None:
            raise AuthenticationError
        now = self._now()
        if self._has_ended(session, now):
            del self._sessions[digest]
            raise SessionEndedError
        if not hmac.compare_digest(session.certificate_sha256, certificate_sha256):
            raise AuthenticationError
        if is_used:
            session.used_at = now
            self._sessions.move_to_end(digest)
        return session

    def look(self, secret: str) -> Session:
        """
        Return an active session without changing anything; on any thread.

        Raises:
            SessionEndedError: It has ended.
        """
        session = self._sessions.get(_digest(secret))
        if session is None or self._has_ended(session, self._now()):
            raise SessionEndedError
        return session

    def end(self, secret: str) -> None:
        """End a session, if it exists."""
        self._sessions.pop(_digest(secret), None)

    def end_all(self) -> None:
        """End all sessions."""
        self._sessions.clear()
        self._swept_at = self._now()  # The clock may have been set back.

    def ends_at(self, session: Session) -> float:
        """Return the absolute end of a session, in seconds since 1970."""
        return session.begun_at + self.settings.absolute_seconds

    def _has_ended(self, session: Session, now: float) -> bool:
        idle = now - session.used_at >= self.settings.idle_seconds
        return idle or now >= self.ends_at(session)

    def _sweep(self, now: float) -> None:
        """Remove ended sessions, so that their tokens leave the memory."""
        if now - self._swept_at < _SWEEP_SECONDS:
            return
        self._swept_at = now
        for digest in [k for k, s in self._sessions.items() if self._has_ended(s, now)]:
            del self._sessions[digest]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
