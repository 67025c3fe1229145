# SPDX-License-Identifier: MIT
"""
Bearer tokens: JWT (RFC 7519) by the rules of RFC 8725, and the replay cache.

The server's own tokens name principal and roles. Tokens of other issuers state claims,
which the policy maps. All faults of a token raise the same error, which reveals no
details.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Final, Generic, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from hsm_core import wire
from hsm_core.errors import AuthenticationError, HSMError
from hsm_core.identities import is_reserved, shows_nothing, token_issuer
from hsm_core.model import Role, TokenClaims, parse_role
from hsm_core.protocols import SharedState
from hsm_server.config.settings import MAX_TOKEN_BYTES, TokenRules
from hsm_server.identity.token_keys import TokenKey, TokenTrust, canonical


def checked_name(name: str) -> str:
    """
    Return a name without invisible or ambiguous characters.

    Raises:
        AuthenticationError: It has some, or an invalid length.
    """
    if not 1 <= len(name) <= 128 or not name.isprintable() or name != name.strip():
        raise AuthenticationError
    # Names that look equal must be equal, and nothing may be invisible.
    if not unicodedata.is_normalized("NFC", name) or shows_nothing(name):
        raise AuthenticationError
    return name


def checked_subject(name: str) -> str:
    """
    Return the name of a principal in a token.

    Raises:
        AuthenticationError: See `checked_name`; or it is reserved for the HSM.
    """
    if is_reserved(checked_name(name)):
        raise AuthenticationError
    return name


T = TypeVar("T")


class LRUCache(Generic[T]):
    """
    Least-recently-used cache; thread-safe.

    Args:
        most: Maximum number of entries.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._found: OrderedDict[bytes, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: bytes) -> T | None:
        """Return the cached result, or None."""
        with self._lock:
            found = self._found.get(key)
            if found is not None:
                self._found.move_to_end(key)
            return found

    def put(self, key: bytes, found: T) -> None:
        """Store a result."""
        with self._lock:
            self._found[key] = found
            while len(self._found) > self._most:
                self._found.popitem(last=False)

    def drop(self, key: bytes) -> None:
        """Remove a result."""
        with self._lock:
            self._found.pop(key, None)


_MAX_REMEMBERED: Final = 4096
_TYPES: Final = frozenset({"jwt", "at+jwt"})
"""Types of a token, without ``application/`` (RFC 7519; RFC 9068, section 2.1)."""

_FOREIGN_TYPES: Final = _TYPES | {"jose"}
"""Types of other issuers' tokens (SPIFFE JWT-SVID, section 2.3)."""

Time: TypeAlias = (
    Annotated[int, Meta(ge=0, lt=2**53)] | Annotated[float, Meta(ge=0, lt=2.0**53)]
)
"""Claim of an instant, in seconds since 1970 (RFC 7519, section 2)."""


class _Claims(msgspec.Struct, frozen=True, kw_only=True):
    """Relevant claims of any token; others are allowed and ignored."""

    sub: str
    exp: Time
    iat: Time | msgspec.UnsetType = msgspec.UNSET
    nbf: Time | msgspec.UnsetType = msgspec.UNSET
    iss: str | msgspec.UnsetType = msgspec.UNSET
    aud: str | list[str] | msgspec.UnsetType = msgspec.UNSET
    jti: str | msgspec.UnsetType = msgspec.UNSET
    cnf: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


class _OwnClaims(_Claims, frozen=True, kw_only=True):
    """Further claims of the server's own tokens."""

    roles: list[str]
    fp: str | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Identity:
    """
    Identity in a token.

    Attributes:
        principal: Its ``sub``; empty if the policy has yet to map the claims.
        credential_id: Its ``jti``, or the start of its hash.
        expires_at: First instant at which it is rejected, in seconds since 1970.
        not_before: First instant at which it is accepted.
        certificate_sha256: Required fingerprints of the client certificate.
        key_name: Name of its key; see `TokenKey.name`.
        token_id: Its ``jti``, or empty.
        issued_at: Its ``iat``; before all time if absent.
        claims: Claims of another issuer's token, to be mapped by the policy.
        rules: Names of the policy's rules that have mapped them.
    """

    principal: str
    roles: frozenset[Role]
    credential_id: str
    expires_at: float
    not_before: float
    certificate_sha256: frozenset[str]
    key_name: str
    token_id: str = ""
    issued_at: float = -1.0
    claims: TokenClaims | None = None
    rules: tuple[str, ...] = ()


class TokenVerifier:
    """
    Verifier of bearer tokens with fixed keys and rules.

    It caches valid tokens until they expire, so other keys need another verifier.
    Thread-safe.

    Args:
        trust: Keys and required claims.

        now: Time, in seconds since 1970, that never goes back.

        issuers: Trust in other issuers, whose tokens the policy maps. A token of theirs
            is verified with their keys alone.
    """

    def __init__(
        self,
        trust: TokenTrust,
        now: Callable[[], float],
        issuers: Iterable[TokenTrust] = (),
    ) -> None:
        self.trust = trust
        self._issuers = {other.issuer: other for other in issuers}
        self._now = now
        self._memory: LRUCache[Identity] = LRUCache(_MAX_REMEMBERED)

    def verify(self, token: str, *, certificate_sha256: str = "") -> Identity:
        """
        Return the identity in a valid token.

        Args:
            token: JWS compact serialisation.

            certificate_sha256: Fingerprint of the peer's certificate, lower-case hex.

        Raises:
            AuthenticationError: It is not valid, for any reason.

        Standard:
            RFC 7519, RFC 7515 section 5.2, RFC 8725, RFC 8705 section 3.1 (``cnf``),
            RFC 9068 sections 2.1 and 4 (``at+jwt``).
        """
        try:
            data = token.encode("ascii")
        except UnicodeEncodeError:
            raise AuthenticationError from None
        if len(data) > MAX_TOKEN_BYTES:
            raise AuthenticationError
        digest = hashlib.sha256(data).digest()
        identity = self._memory.get(digest)
        if identity is None:
            identity = self._examine(token, digest)
            self._memory.put(digest, identity)
        now = self._now()
        if now >= identity.expires_at:
            self._memory.drop(digest)
            raise AuthenticationError
        if now < identity.not_before:
            raise AuthenticationError
        for fingerprint in identity.certificate_sha256:
            if not hmac.compare_digest(fingerprint, certificate_sha256):
                raise AuthenticationError
        return identity

    def _examine(self, token: str, digest: bytes) -> Identity:
        trust = self._trust_for(token)
        key, payload = trust.open(token, _FOREIGN_TYPES if trust.issuer else _TYPES)
        try:
            tree = wire.scan_json(payload)
            claims = msgspec.convert(tree, _Claims if trust.issuer else _OwnClaims)
        except (HSMError, msgspec.ValidationError):
            raise AuthenticationError from None
        self._check_times(claims, trust.rules)
        identity = _identity(claims, digest, trust, key)
        if isinstance(claims, _OwnClaims):
            _check_parties(claims, trust.rules)
            return replace(
                identity,
                principal=checked_subject(claims.sub),
                roles=_roles(claims.roles),
            )
        said = TokenClaims(
            issuer=trust.issuer,
            audiences=tuple(_audiences(claims)),
            claims=tree,
            key_name=identity.key_name,
        )
        return replace(identity, claims=said)

    def _trust_for(self, token: str) -> TokenTrust:
        """Return the trust in the issuer that a token claims to be of."""
        if not self._issuers:
            return self.trust
        try:
            payload = canonical(token.split(".")[1])
            issuer = token_issuer(wire.scan_json(payload), self._issuers)
        except (HSMError, IndexError, ValueError):
            raise AuthenticationError from None
        return self._issuers.get(issuer, self.trust)

    def _check_times(self, claims: _Claims, rules: TokenRules) -> None:
        now = self._now()
        if claims.iat is msgspec.UNSET:
            if claims.exp - now > rules.max_lifetime_seconds + rules.leeway_seconds:
                raise AuthenticationError
            return
        if claims.iat > now + rules.leeway_seconds:
            raise AuthenticationError
        if not 0 < claims.exp - claims.iat <= rules.max_lifetime_seconds:
            raise AuthenticationError


def _identity(
    claims: _Claims, digest: bytes, trust: TokenTrust, key: TokenKey
) -> Identity:
    """Return the identity in a token, without principal and roles."""
    token_id = "" if claims.jti is msgspec.UNSET else checked_name(claims.jti)
    leeway = trust.rules.leeway_seconds
    return Identity(
        principal="",
        roles=frozenset(),
        credential_id=token_id or f"sha256:{digest.hex()[:16]}",
        expires_at=claims.exp + leeway,
        not_before=-1 if claims.nbf is msgspec.UNSET else claims.nbf - leeway,
        certificate_sha256=_bound_certificates(claims),
        key_name=trust.name_of(key),
        token_id=token_id,
        issued_at=-1 if claims.iat is msgspec.UNSET else claims.iat,
    )


def _audiences(claims: _Claims) -> list[str]:
    if claims.aud is msgspec.UNSET:
        return []
    return [claims.aud] if isinstance(claims.aud, str) else claims.aud


def _check_parties(claims: _Claims, rules: TokenRules) -> None:
    if rules.issuer and claims.iss != rules.issuer:
        raise AuthenticationError
    # RFC 7519, section 4.1.3: reject tokens for other audiences.
    if rules.audience:
        if rules.audience not in _audiences(claims):
            raise AuthenticationError
    elif claims.aud is not msgspec.UNSET:
        raise AuthenticationError


def _roles(names: list[str]) -> frozenset[Role]:
    """
    Return the known roles, as documented or in lower case; others are ignored.

    Raises:
        AuthenticationError: No role is known, or one is repeated.
    """
    known = []
    for name in names:
        with contextlib.suppress(HSMError):
            role = parse_role(name)
            if name in (role.value, name.lower()):
                known.append(role)
    if not known or len(set(known)) != len(known):
        raise AuthenticationError
    return frozenset(known)


def _bound_certificates(claims: _Claims) -> frozenset[str]:
    """Return the fingerprints of the certificates that a token is bound to."""
    found = set()
    if isinstance(claims, _OwnClaims) and claims.fp is not msgspec.UNSET:
        found.add(claims.fp)
    if claims.cnf is not msgspec.UNSET:
        if claims.cnf.keys() != {"x5t#S256"}:
            raise AuthenticationError
        try:
            found.add(canonical(claims.cnf["x5t#S256"]).hex())
        except ValueError:
            raise AuthenticationError from None
    if not all(re.fullmatch("[0-9a-f]{64}", fingerprint) for fingerprint in found):
        raise AuthenticationError
    return frozenset(found)


_LONGEST_SECONDS: Final = 10 * 366 * 24 * 3600.0
"""Seconds for which other nodes remember a token that does not expire."""

MOST_SPENT: Final = 100_000
"""Maximum number of remembered tokens; at the limit no other token is fresh."""


class ReplayCache:
    """
    Replay cache: remembers each token until it expires, and removes none early.

    It cannot know tokens used before its start or while no rule required freshness. So
    a token is fresh only if it was issued later, by both clocks. Thread-safe.

    Args:
        now: Time, in seconds since 1970, that never goes back.

        most: Maximum number of tokens in memory.

        shared: State of a cluster, in which a token is spent once for all nodes.
    """

    def __init__(
        self,
        now: Callable[[], float],
        most: int = MOST_SPENT,
        shared: SharedState | None = None,
    ) -> None:
        self._now = now
        self._most = most
        self._shared = shared
        self._lock = threading.Lock()
        self._since = now()
        self._spent: dict[bytes, float] = {}
        self._next_end = 0.0

    def __len__(self) -> int:
        return len(self._spent)

    def forget(self) -> None:
        """Discard the record of used tokens; no rule requires freshness."""
        with self._lock:
            self._since = self._now()
            self._spent.clear()

    def restart(self) -> None:
        """Treat tokens issued until now as used, because the time was set back."""
        with self._lock:
            self._since = self._now()

    def spend(self, identity: Identity, leeway_seconds: float) -> bool:
        """
        Return whether a token is used for the first time, and remember it.

        Args:
            identity: Identity in the token; a token without ID is never fresh.

            leeway_seconds: Tolerated difference to the issuer's clock.

        Raises:
            StoreUnavailableError: The nodes' common database does not answer.
        """
        now = self._now()
        name = f"{identity.key_name} {identity.token_id}".encode()
        digest = hashlib.sha256(name).digest()
        with self._lock:
            if not identity.token_id or digest in self._spent:
                return False
            if identity.issued_at <= self._since + leeway_seconds:
                return False
            if self._shared is None:
                return self._remember(digest, identity.expires_at, now)
        # Without the lock, for which others would wait as long as for the database.
        ends = min(identity.expires_at, now + _LONGEST_SECONDS) + leeway_seconds
        return self._shared.add("spent token", digest.hex(), b"", ends)

    def _remember(self, digest: bytes, ends: float, now: float) -> bool:
        if len(self._spent) >= self._most and not self._drop_ended(now):
            return False
        self._spent[digest] = ends
        self._next_end = min(self._next_end, ends)
        return True

    def _drop_ended(self, now: float) -> bool:
        """Remove expired tokens; return whether there is room."""
        if now < self._next_end:
            return False
        self._spent = {d: end for d, end in self._spent.items() if now < end}
        self._next_end = min(self._spent.values(), default=0.0)
        return len(self._spent) < self._most
