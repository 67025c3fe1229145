# SPDX-License-Identifier: MIT
"""
Sessions of the web console: who has signed in, for how long, and resting on what.

They live in the memory of the vault, which forgets them when it ends. Of a session's
secret it keeps the hash alone. The credential that was shown is kept, and verified
again at each use: what ends that ends the session.
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
from hsm_server.identity.oidc.id_tokens import Person

_SECRET_BYTES: Final = 32
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_SWEEP_SECONDS: Final = 60.0
_MOST: Final = 4096
_MOST_OF_ONE: Final = 16


class SessionEndedError(AuthenticationError):
    """A session that was good once; whoever comes back to it attacks nobody."""


@dataclass(slots=True, repr=False)
class Session:
    """
    One sign-in.

    Attributes:
        principal: Who has signed in.
        credential: The token that was shown; empty where the certificate alone counts.
        certificate_sha256: Of the certificate that must be shown with it; empty if
            there was none.
        person: Whom a provider has named, in the place of a credential.
        begun_at: Seconds since 1970.
        used_at: When it was used last, seconds since 1970.
    """

    principal: str
    credential: str
    certificate_sha256: str
    person: Person | None
    begun_at: float
    used_at: float


class Sessions:
    """
    Remembers sessions, up to a number of them; for one thread.

    Where there are too many, the one that was used least recently is forgotten: first
    of the principal who begins another, then of all.

    Args:
        settings: How long they last.

        now: Seconds since 1970, never going back.

        most: How many there may be.

        most_of_one: How many one principal may have.
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
            principal: Who the credential was found to name.

            credential: To be verified at each use; may be empty.

            certificate_sha256: Of the certificate that was shown, if one was.

            person: Whom a provider has named, if one has.
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
        Return a session that goes on.

        Args:
            secret: What `begin` has returned.

            certificate_sha256: Of the certificate that is shown now.

            is_used: Whether this keeps it from becoming idle.

        Raises:
            SessionEndedError: It has lasted too long, or was idle for too long.
            AuthenticationError: There is none, or it belongs to another certificate.
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

    def end(self, secret: str) -> None:
        """Forget a session, if there is one."""
        self._sessions.pop(_digest(secret), None)

    def end_all(self) -> None:
        """Forget all sessions."""
        self._sessions.clear()

    def ends_at(self, session: Session) -> float:
        """Return when it ends however much it is used, seconds since 1970."""
        return session.begun_at + self.settings.absolute_seconds

    def _has_ended(self, session: Session, now: float) -> bool:
        idle = now - session.used_at >= self.settings.idle_seconds
        return idle or now >= self.ends_at(session)

    def _sweep(self, now: float) -> None:
        """Forget what has ended, so that no token stays longer than it must."""
        if now - self._swept_at < _SWEEP_SECONDS:
            return
        self._swept_at = now
        for digest in [k for k, s in self._sessions.items() if self._has_ended(s, now)]:
            del self._sessions[digest]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
