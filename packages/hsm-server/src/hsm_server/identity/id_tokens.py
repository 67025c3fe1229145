# SPDX-License-Identifier: MIT
"""
ID tokens of OpenID Connect: verification in the vault, and the provider's keys.

All faults of a token raise the same error, which reveals no details.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from hsm_core import wire
from hsm_core.errors import AuthenticationError, HSMError
from hsm_core.model import Role, TokenClaims
from hsm_core.protocols import SharedState
from hsm_server.config.settings import MAX_TOKEN_BYTES, OIDCSettings, TokenRules
from hsm_server.identity.clock import FlooredClock
from hsm_server.identity.token_keys import Algorithm, TokenKey, TokenTrust
from hsm_server.identity.token_sources import IssuerKeys
from hsm_server.identity.token_verifier import Time, checked_subject

_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_MOST_REMEMBERED: Final = 4096
_MAX_AGE_SECONDS: Final = 600
"""Maximum age of an ID token at sign-in."""


class _Claims(msgspec.Struct, frozen=True, kw_only=True):
    """Claims with fixed names; others are allowed."""

    iss: str
    aud: str | list[str]
    exp: Time
    iat: Time
    nonce: str
    nbf: Time = 0
    azp: str | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """
    Identity in an ID token.

    Attributes:
        principal: The principal claim.
        roles: The mapped roles; not empty.
        credential_id: Start of the token's hash.
        key_name: The provider; see `provider_name`.
    """

    principal: str
    roles: frozenset[Role]
    credential_id: str
    key_name: str


class IDTokens:
    """
    Verifier of ID tokens of one provider; accepts each token once.

    Args:
        settings: The provider.

        keys: Its current keys.

        now: Time, in seconds since 1970, that never goes back.

    Standard:
        OpenID Connect Core 1.0, sections 2 and 3.1.3.7; RFC 8725.
    """

    def __init__(
        self,
        settings: OIDCSettings,
        keys: Sequence[TokenKey],
        now: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._now = now
        self._used: dict[bytes, float] = {}
        self._name = provider_name(settings)
        self.use(keys)

    def use(self, keys: Sequence[TokenKey]) -> None:
        """Replace the keys; HS256 secrets are ignored, because clients know them."""
        public = tuple(key for key in keys if key.algorithm is not Algorithm.HS256)
        self._trust = TokenTrust(public, TokenRules())

    def redeem(
        self, token: str, nonce: str, shared: SharedState | None = None
    ) -> Person:
        """
        Return the person in a valid ID token that was not redeemed before.

        Args:
            token: JWS compact serialisation.

            nonce: Nonce of the authorization request.

            shared: State of a cluster, in which a token is redeemed once for all nodes.

        Raises:
            AuthenticationError: It is not valid, for any reason.
            StoreUnavailableError: The nodes' common database does not answer.
        """
        if len(token) > MAX_TOKEN_BYTES or not _NONCE.match(nonce):
            raise AuthenticationError
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        _, payload = self._trust.open(token, {"jwt"})
        try:
            tree = wire.scan_json(payload)
            claims = msgspec.convert(tree, _Claims)
        except (HSMError, msgspec.ValidationError):
            raise AuthenticationError from None
        usable_until = self._check_times(claims)
        self._check_parties(claims)
        # The nonce binds the token to the redirected browser.
        if not hmac.compare_digest(
            claims.nonce.encode("utf-8", "surrogatepass"), nonce.encode()
        ):
            raise AuthenticationError
        principal = tree.get(self._settings.principal_claim)
        if not isinstance(principal, str):
            raise AuthenticationError
        person = Person(
            principal=checked_subject(principal),
            roles=self._roles(tree),
            credential_id=f"sha256:{digest.hex()[:16]}",
            key_name=self._name,
        )
        # Anyone can make a second valid ECDSA signature from the first.
        signed, _, _ = token.rpartition(".")
        self._note_use(hashlib.sha256(signed.encode()).digest(), usable_until, shared)
        return person

    def check(self, person: Person) -> None:
        """
        Check a person who signed in before, perhaps on another node or in another run.

        Raises:
            AuthenticationError: Another provider named them, or the file gives nobody
                one of their roles now.
        """
        is_ours = person.key_name == self._name
        if not is_ours or not person.roles.issubset(self._settings.roles.values()):
            raise AuthenticationError

    def without_own_audience(self, token: TokenClaims) -> TokenClaims:
        """
        Return claims without the console as an audience.

        An ID token passes through a front end, so it must be no bearer token.
        """
        if token.issuer != self._settings.issuer:
            return token
        others = tuple(a for a in token.audiences if a != self._settings.client_id)
        return msgspec.structs.replace(token, audiences=others)

    def _check_times(self, claims: _Claims) -> float:
        """Return the end of the time in which a token may be redeemed."""
        now, leeway = self._now(), self._settings.leeway_seconds
        if now < max(claims.iat, claims.nbf) - leeway:
            raise AuthenticationError
        until = min(claims.exp, claims.iat + _MAX_AGE_SECONDS) + leeway
        if now >= until:
            raise AuthenticationError
        return until

    def _check_parties(self, claims: _Claims) -> None:
        own = self._settings.client_id
        audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        if claims.iss != self._settings.issuer or own not in audiences:
            raise AuthenticationError
        if claims.azp != own and (claims.azp is not None or len(audiences) > 1):
            raise AuthenticationError

    def _roles(self, claims: dict[str, Any]) -> frozenset[Role]:
        found: Any = claims
        for step in _steps(claims, self._settings.roles_claim):
            found = found.get(step) if isinstance(found, dict) else None
        words = found if isinstance(found, list) else [found]
        known = self._settings.roles
        roles = {
            known[word] for word in words if isinstance(word, str) and word in known
        }
        if not roles:
            raise AuthenticationError
        return frozenset(roles)

    def _note_use(
        self, digest: bytes, until: float, shared: SharedState | None
    ) -> None:
        if shared is not None:
            if not shared.add("spent ID token", digest.hex(), b"", until):
                raise AuthenticationError
            return
        if len(self._used) >= _MOST_REMEMBERED:
            now = self._now()
            self._used = {key: end for key, end in self._used.items() if end > now}
        # A token that is removed early could be redeemed again.
        if digest in self._used or len(self._used) >= _MOST_REMEMBERED:
            raise AuthenticationError
        self._used[digest] = until


def provider_name(settings: OIDCSettings) -> str:
    """Return the stable key name of a provider."""
    named = f"{len(settings.issuer)}:{settings.issuer}{settings.client_id}"
    return hashlib.sha256(b"FerroHSM OIDC provider 1" + named.encode()).hexdigest()


def _steps(claims: dict[str, Any], path: str) -> list[str]:
    """Return the path to a claim; a claim's own name may contain dots."""
    return [path] if path in claims else path.split(".")


class ProviderTrust(IssuerKeys):
    """
    Verifier of ID tokens with keys that can change while the server runs.

    Args:
        settings: The provider.

        on_change: Called with the fault of the keys, or with an empty text.

        clock: Time used for ID token expiry.

    Attributes:
        tokens: Verifier of ID tokens.
        name: Name of the provider in the HSM.

    Raises:
        HSMError: The keys are unreadable or not valid.
    """

    def __init__(
        self,
        settings: OIDCSettings,
        on_change: Callable[[str], None],
        clock: FlooredClock,
    ) -> None:
        self.name = provider_name(settings)
        super().__init__(
            settings.issuer,
            settings.jwks_file,
            TokenRules(),
            lambda changed: self.tokens.use(changed.keys),
            on_change,
        )
        self.tokens = IDTokens(settings, self.first.keys, clock.now)


def provider_trust_for(
    settings: OIDCSettings | None,
    on_change: Callable[[str], None],
    clock: FlooredClock,
) -> ProviderTrust | None:
    """
    Return the provider trust, if a provider is configured.

    Raises:
        HSMError: Its keys can't be read or are not valid.
    """
    return None if settings is None else ProviderTrust(settings, on_change, clock)
