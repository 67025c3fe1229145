# SPDX-License-Identifier: MIT
"""Token trust: the current keys and rules."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hsm_server.config.settings import TokenRules
from hsm_server.identity.tokens.keys import (
    TokenKey,
    key_from_secret,
    public_key_set,
)


@dataclass(frozen=True, slots=True)
class TokenTrust:
    """
    Immutable keys and rules, replaced as a whole.

    Attributes:
        keys: Keys with distinct kids.
        rules: Required claims of a token.
    """

    keys: tuple[TokenKey, ...]
    rules: TokenRules

    @classmethod
    def of_secret(cls, secret: bytes, rules: TokenRules) -> TokenTrust:
        """Return the trust in one HS256 secret that has no kid."""
        return cls((key_from_secret(secret),), rules)

    def of_names(self, names: Collection[str]) -> TokenTrust:
        """Return the trust in those of these keys that have one of *names*."""
        keys = tuple(key for key in self.keys if key.name in names)
        return TokenTrust(keys, self.rules)

    def candidates(self, algorithm: object, kid: str | None) -> Sequence[TokenKey]:
        """
        Return the keys that may have signed a token.

        Args:
            algorithm: ``alg`` of its header, which chooses among keys and never says
                how one is used.

            kid: Its ``kid``; without one all keys of the algorithm may have.
        """
        return [
            key
            for key in self.keys
            if key.algorithm.value == algorithm and (kid is None or key.kid == kid)
        ]

    def public_keys(self) -> bytes:
        """Return the JWK Set of the public ones."""
        return public_key_set(self.keys)


class TrustedNames:
    """
    Names of the current keys: `CredentialKeys` of the HSM.

    Args:
        trust: The keys, which may be replaced.

        also: Names of other credential sources, constant while the server runs.
    """

    def __init__(self, trust: TokenTrust, also: Sequence[str] = ()) -> None:
        self._also = tuple(also)
        self.use(trust)

    def use(self, trust: TokenTrust) -> None:
        """Take the names of other keys; those that are gone count no more."""
        self._names = (*(key.name for key in trust.keys), *self._also)

    def trusted(self) -> tuple[str, ...]:
        """Return the names that count."""
        return self._names
