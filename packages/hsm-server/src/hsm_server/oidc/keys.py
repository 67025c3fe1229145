# SPDX-License-Identifier: MIT
"""Where the keys of a provider come from."""

from __future__ import annotations

from hsm_server.settings import OIDCSettings, TokenRules
from hsm_server.tokens.config import load_key_set
from hsm_server.tokens.trust import TokenTrust

__all__ = ["ProviderKeys"]


class ProviderKeys:
    """
    Reads the keys of a provider from a file that may change: a `KeySource`.

    Args:
        settings: The provider.
    """

    def __init__(self, settings: OIDCSettings) -> None:
        self._path = settings.jwks_file

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
