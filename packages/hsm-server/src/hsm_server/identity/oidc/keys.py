# SPDX-License-Identifier: MIT
"""Key sources of a provider."""

from __future__ import annotations

from pathlib import Path

from hsm_core.errors import HSMError
from hsm_server.config.settings import OIDCSettings, TokenConfig, TokenRules
from hsm_server.identity.tokens.config import load_key_set, still_in_key_set
from hsm_server.identity.tokens.source import TokenSource
from hsm_server.identity.tokens.trust import TokenTrust


def keys_of(settings: OIDCSettings) -> ProviderKeys | TokenSource:
    """Return the key source of a provider: its file, or the fetched keys."""
    if settings.jwks_file is not None:
        return ProviderKeys(settings.jwks_file)
    fetched = TokenConfig(key_set_url=settings.issuer)
    return TokenSource(fetched, bytes, TokenRules())


class ProviderKeys:
    """
    Keys of a provider in a file that may change: a `KeySource`.

    Args:
        path: The file, a JWK Set.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def is_file(self) -> bool:
        """Whether it may change by itself."""
        return True

    @property
    def trouble(self) -> str:
        """Nothing: what can be read is what should count."""
        return ""

    def read(self) -> TokenTrust:
        """
        Return the keys that count now; what tokens must say is not theirs.

        Raises:
            HSMError: They can't be read, or are not valid.
        """
        return TokenTrust(load_key_set(self._path), TokenRules())

    def still_named(self, former: TokenTrust) -> TokenTrust:
        """See `KeySource`."""
        try:
            kept = still_in_key_set(self._path, former.keys)
        except HSMError:
            return former
        return former.of_names({key.name for key in kept})
