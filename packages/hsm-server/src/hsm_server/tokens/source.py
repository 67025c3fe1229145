# SPDX-License-Identifier: MIT
"""Where the keys of tokens come from: a file that may change, or one secret."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from hsm_server.settings import TokenRules
from hsm_server.tokens.config import load_token_config
from hsm_server.tokens.trust import TokenTrust

__all__ = ["KeySource", "TokenSource"]


class KeySource(Protocol):
    """Says again and again which keys count."""

    @property
    def is_file(self) -> bool:
        """Whether that may change by itself."""
        ...

    def read(self) -> TokenTrust:
        """
        Return what counts now.

        Raises:
            HSMError: It can't be read, or is not valid.
        """
        ...


class TokenSource:
    """
    Reads which keys count.

    Args:
        config: File of keys; None where there is one secret.

        read_secret: Reads that, where there is no file.

        rules: What flags say of tokens.
    """

    def __init__(
        self, config: Path | None, read_secret: Callable[[], bytes], rules: TokenRules
    ) -> None:
        self._config = config
        self._read_secret = read_secret
        self._rules = rules

    @property
    def is_file(self) -> bool:
        """Whether it may change by itself."""
        return self._config is not None

    def read(self) -> TokenTrust:
        """
        Return what counts now.

        Raises:
            HSMError: It can't be read, or is not valid.
        """
        if self._config is None:
            return TokenTrust.of_secret(self._read_secret(), self._rules)
        return load_token_config(self._config, self._rules)
