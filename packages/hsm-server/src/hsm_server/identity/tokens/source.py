# SPDX-License-Identifier: MIT
"""Sources of token keys: a file that may change, a URL, or one secret."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from hsm_core.errors import ConfigurationError, InvalidInputError, UnsafeFileModeError
from hsm_server.config.settings import TokenConfig, TokenRules
from hsm_server.identity.tokens.config import (
    load_token_config,
    public_keys_of_set,
    still_in_config,
    still_in_public_set,
    with_keys,
)
from hsm_server.identity.tokens.keys import TokenKey
from hsm_server.identity.tokens.trust import TokenTrust

_FETCHED: Final = "https://"
"""Origin of fetched keys; no file's name."""


class KeySource(Protocol):
    """Source of the current keys."""

    @property
    def is_file(self) -> bool:
        """Whether that may change by itself."""
        ...

    @property
    def trouble(self) -> str:
        """Why what counts is not what should, though it can be read; or nothing."""
        ...

    def read(self) -> TokenTrust:
        """
        Return the current keys and rules.

        Raises:
            HSMError: It can't be read, or is not valid.
        """
        ...

    def still_named(self, former: TokenTrust) -> TokenTrust:
        """
        Return *former* without the keys that the source no longer names.

        It is asked where `read` raises: what takes trust away counts nevertheless. A
        source that can't be read says nothing, and keeps all.
        """
        ...


class TokenSource:
    """
    Reader of the current token keys.

    It fetches nothing itself and verifies everything that was fetched. The last valid
    keys stay in use until valid ones replace them or the configuration no longer names
    them.

    Args:
        config: File of keys, and whether there are others to be fetched; where there
            is neither, there is one secret, or it says that there are no keys.

        read_secret: Reads the single secret.

        rules: Token rules of the command line.
    """

    def __init__(
        self, config: TokenConfig, read_secret: Callable[[], bytes], rules: TokenRules
    ) -> None:
        self._path: Path | None = config.path
        self._is_fetching = bool(config.key_set_url)
        self._has_no_keys = config.has_no_keys
        self._read_secret = read_secret
        self._rules = rules
        self._fetched: tuple[TokenKey, ...] = ()
        self._fault_of_fetching = self._fault_of_set = ""

    @property
    def is_file(self) -> bool:
        """Whether it may change by itself."""
        return self._path is not None

    @property
    def trouble(self) -> str:
        """Why what is to be fetched is not what counts, or nothing."""
        return self._fault_of_fetching or self._fault_of_set

    def take(self, data: bytes | None, problem: str) -> None:
        """
        Take in what came of fetching.

        An empty set is valid: the issuer has withdrawn all keys.

        Args:
            data: A JWK Set; None if it is the one of before, or if there is a problem.

            problem: Why it could not be fetched, or nothing.
        """
        self._fault_of_fetching = problem
        if data is None:
            return
        try:
            self._take(data)
        except Exception as error:
            # An unexpected exception must raise an alarm, too.
            self._fault_of_set = (
                f"The fetched key set can't be read: {type(error).__name__}."
            )

    def _take(self, data: bytes) -> None:
        try:
            found = public_keys_of_set(data)
        except InvalidInputError as error:
            self._fault_of_set = f"The fetched key set is not valid: {error}"
            self._fetched = still_in_public_set(data, self._fetched)
        else:
            self._fetched = tuple(replace(key, origin=_FETCHED) for key in found)
            no_keys = "The fetched key set holds no usable key."
            self._fault_of_set = "" if found else no_keys

    def read(self) -> TokenTrust:
        """
        Return the current keys and rules.

        Raises:
            HSMError: It can't be read, or is not valid.
        """
        if self._path is not None:
            least = 0 if self._is_fetching else 1
            found = load_token_config(self._path, self._rules, least=least)
        elif self._is_fetching or self._has_no_keys:
            found = TokenTrust((), self._rules)
        else:
            return TokenTrust.of_secret(self._read_secret(), self._rules)
        return with_keys(found, self._fetched) if self._is_fetching else found

    def still_named(self, former: TokenTrust) -> TokenTrust:
        """See `KeySource`."""
        fetched = {key.name for key in self._fetched}
        kept: Sequence[TokenKey] = [k for k in former.keys if k.origin != _FETCHED]
        try:
            if self._path is not None:
                kept = still_in_config(self._path, kept, former.rules)
            elif not self._is_fetching:
                kept = TokenTrust.of_secret(self._read_secret(), self._rules).keys
        except (InvalidInputError, UnsafeFileModeError):
            pass
        except ConfigurationError as error:
            # A secret that can be read and is none names no key.
            if self._path is None and not error.facts.get("unreadable"):
                kept = ()
        names = fetched.union(key.name for key in kept)
        return former.of_names(names)
