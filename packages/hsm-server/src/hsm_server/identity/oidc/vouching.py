# SPDX-License-Identifier: MIT
"""Provider state in the vault: current keys, and redeemed ID tokens."""

from __future__ import annotations

from collections.abc import Callable

from hsm_server.config.settings import OIDCSettings
from hsm_server.identity.clock import FlooredClock
from hsm_server.identity.oidc.id_tokens import IDTokens, provider_name
from hsm_server.identity.oidc.keys import keys_of
from hsm_server.identity.tokens.source import TokenSource
from hsm_server.identity.tokens.watch import TokenWatch


class Vouching:
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
        source = keys_of(settings)
        self._source = source
        trust = source.read()
        self.tokens = IDTokens(settings, trust.keys, clock.now)
        self._watch = TokenWatch(
            source, trust, lambda changed: self.tokens.use(changed.keys), on_change
        )

    async def run(self, interval_seconds: float) -> None:
        """Watch for changed keys until cancelled."""
        await self._watch.run(interval_seconds)

    def take(self, data: bytes | None, problem: str) -> None:
        """Take in what came of fetching its keys, if they are fetched; then `look`."""
        if isinstance(self._source, TokenSource):
            self._source.take(data, problem)

    async def look(self) -> str:
        """Put in force what is there now; return why not, or nothing."""
        return await self._watch.look()


def vouching_for(
    settings: OIDCSettings | None,
    on_change: Callable[[str], None],
    clock: FlooredClock,
) -> Vouching | None:
    """
    Return the provider trust, if a provider is configured.

    Raises:
        HSMError: Its keys can't be read, or are not valid.
    """
    return None if settings is None else Vouching(settings, on_change, clock)
