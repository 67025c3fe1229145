# SPDX-License-Identifier: MIT
"""
Sources of token keys, and the watch that applies their changes.

A source that is not valid adds no key; the last valid ones stay in use. Keys that it no
longer names are removed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from hsm_core.errors import (
    ConfigurationError,
    HSMError,
    InvalidInputError,
    UnsafeFileModeError,
)
from hsm_server.config.settings import TokenRules
from hsm_server.identity.token_config import (
    load_key_set,
    load_token_config,
    public_keys_of_set,
    still_in_config,
    still_in_key_set,
    still_in_public_set,
    with_keys,
)
from hsm_server.identity.token_keys import Algorithm, TokenKey, TokenTrust
from hsm_server.system.standard_streams import sentence

_FETCHED: Final = "https://"
"""Origin of fetched keys; no file's name."""


class TokenSource:
    """
    Reader of the current token keys.

    It fetches nothing itself and verifies everything that was fetched. The last valid
    keys stay in use until valid ones replace them or the configuration no longer names
    them.

    Args:
        path: Key file, or None.

        read_secret: Reads the single secret, if no keys come from a file or a fetch.

        rules: Token rules of the command line.

        is_fetching: Whether keys are fetched, too.

        has_no_keys: Whether there is no secret either.

        load: Reads the key file; see `load_token_config`.

        still: Reads the key file if it is invalid; see `still_in_config`.
    """

    def __init__(
        self,
        path: Path | None,
        read_secret: Callable[[], bytes],
        rules: TokenRules,
        *,
        is_fetching: bool = False,
        has_no_keys: bool = False,
        load: Callable[..., TokenTrust] = load_token_config,
        still: Callable[
            [Path, Sequence[TokenKey], TokenRules], Sequence[TokenKey]
        ] = still_in_config,
    ) -> None:
        self._load = load
        self._still = still
        self._path = path
        self._is_fetching = is_fetching
        self._has_no_keys = has_no_keys
        self._read_secret = read_secret
        self._rules = rules
        self._fetched: tuple[TokenKey, ...] = ()
        self._was_fetched = False
        self._fault_of_fetching = self._fault_of_set = ""

    @property
    def is_file(self) -> bool:
        """Whether it is a file, which may change at any time."""
        return self._path is not None

    @property
    def is_complete(self) -> bool:
        """Whether all its keys are known: after a start, some must first be fetched."""
        return self._was_fetched or not self._is_fetching

    @property
    def trouble(self) -> str:
        """Fault of the fetched keys, or empty."""
        return self._fault_of_fetching or self._fault_of_set

    def take(self, data: bytes | None, problem: str) -> None:
        """
        Use the result of a fetch.

        An empty set is valid: the issuer has withdrawn all keys.

        Args:
            data: A JWK Set; None if unchanged or not fetched.

            problem: Why it could not be fetched, or empty.
        """
        self._fault_of_fetching = problem
        if data is None:
            return
        try:
            self._take(data)
        except Exception as error:
            # An unexpected exception must raise an alarm too.
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
            self._was_fetched = True
            no_keys = "The fetched key set holds no usable key."
            self._fault_of_set = "" if found else no_keys

    def read(self) -> TokenTrust:
        """
        Return the current keys and rules.

        Raises:
            HSMError: It can't be read or is not valid.
        """
        if self._path is not None:
            least = 0 if self._is_fetching else 1
            found = self._load(self._path, self._rules, least=least)
        elif self._is_fetching or self._has_no_keys:
            found = TokenTrust((), self._rules)
        else:
            return TokenTrust.of_secret(self._read_secret(), self._rules)
        return with_keys(found, self._fetched) if self._is_fetching else found

    def still_named(self, former: TokenTrust) -> TokenTrust:
        """
        Return *former* without the keys that the source no longer names.

        It is used when `read` raises: removed keys lose trust even then. A source that
        can't be read keeps all keys.
        """
        fetched = {key.name for key in self._fetched}
        kept: Sequence[TokenKey] = [k for k in former.keys if k.origin != _FETCHED]
        try:
            if self._path is not None:
                kept = self._still(self._path, kept, former.rules)
            elif not self._is_fetching:
                kept = TokenTrust.of_secret(self._read_secret(), self._rules).keys
        except (InvalidInputError, UnsafeFileModeError):
            pass
        except ConfigurationError as error:
            # A readable but invalid secret names no key.
            if self._path is None and not error.facts.get("unreadable"):
                kept = ()
        names = fetched.union(key.name for key in kept)
        return former.of_names(names)


_SETTLING_SECONDS: Final = 0.1
_AHEAD: Final = 0.25
_MOST_READINGS: Final = 20


class TokenWatch:
    """
    Token key watch: reads the source of token keys periodically.

    It detects changes by content, not by modification time. A change takes effect after
    two identical reads, so a half-written file is not used.

    Args:
        source: The source to read.

        trust: The keys and rules in force.

        use: Applies keys and rules.

        on_change: Called with the fault of the source, or with an empty text.

        declare: Withdraws removed keys from all nodes of a cluster; it waits, and may
            raise `HSMError`.
    """

    def __init__(
        self,
        source: TokenSource,
        trust: TokenTrust,
        use: Callable[[TokenTrust], None],
        on_change: Callable[[str], None],
        declare: Callable[[], object] = lambda: None,
    ) -> None:
        self._source = source
        self._trust = trust
        self._use_here = use
        self._on_change = on_change
        self._declare = declare
        self._is_declared = False
        self._problem = ""
        self._lock = asyncio.Lock()

    async def run(self, interval_seconds: float) -> None:
        """
        Watch for changes until cancelled, if the source is a file.

        This node publishes what was removed while it was down, whatever the source.

        Args:
            interval_seconds: Maximum time until a change takes effect.
        """
        look = self.look if self._source.is_file else self._tell_others_first
        # The interval includes the second read of a change.
        seconds = max(interval_seconds / 2, interval_seconds - _AHEAD)
        while await look() or self._source.is_file:
            await asyncio.sleep(seconds)

    async def look(self) -> str:
        """Apply the current keys; return the fault, or an empty text."""
        async with self._lock:
            try:
                trust = await self._settled(self._source.read, self._trust)
            except Exception as error:
                # An unexpected exception must not end the watch.
                await self._withdraw()
                self._note(
                    sentence(error)
                    if isinstance(error, HSMError)
                    else f"unexpected {type(error).__name__}."
                )
                return self._problem
            is_new = trust != self._trust
            if is_new:
                self._use(trust)
            problem = await self._tell_others()
            if is_new and not problem:
                self._on_change("")
                self._problem = ""
            self._note(problem or self._source.trouble)
            return self._problem

    def _use(self, trust: TokenTrust) -> None:
        self._trust = trust
        self._is_declared = False
        self._use_here(trust)

    async def _tell_others_first(self) -> str:
        async with self._lock:
            return await self._tell_others()

    async def _tell_others(self) -> str:
        """Withdraw removed keys from all nodes; return why not, or an empty text."""
        if self._is_declared or not self._source.is_complete:
            return ""
        try:
            await asyncio.to_thread(self._declare)
        except HSMError as error:
            return f"Other nodes may accept token keys that were removed: {error}"
        self._is_declared = True
        return ""

    async def _withdraw(self) -> None:
        """Drop the keys that an invalid source no longer names."""
        former = self._trust
        with contextlib.suppress(Exception):
            kept = await self._settled(lambda: self._source.still_named(former), former)
            if kept != former:
                self._use(kept)
            await self._tell_others()

    async def _settled(
        self, read: Callable[[], TokenTrust], known: TokenTrust
    ) -> TokenTrust:
        """
        Return the content of the source after two identical reads.

        Args:
            read: Reads it.

            known: Content in force, for which one read is enough.

        Raises:
            HSMError: It is not valid, or keeps changing.
        """
        before: TokenTrust | str | None = known
        for _ in range(_MOST_READINGS):
            try:
                found = await asyncio.to_thread(read)
                if found == before:
                    return found
                before = found
            except HSMError as error:
                if before == str(error):
                    raise
                before = str(error)
            await asyncio.sleep(_SETTLING_SECONDS)
        raise ConfigurationError(
            "The token keys changed while they were read.", field="auth_jwt_config"
        )

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._on_change(problem)


class IssuerKeys:
    """
    Public keys of one issuer, from a file or fetched, and their watch.

    Args:
        issuer: The issuer.

        jwks_file: File of its keys (RFC 7517); None if they are fetched.

        rules: Token rules.

        use: Called with changed keys.

        on_change: Called with the fault of the keys, or with an empty text.

        declare: See `TokenWatch`.

    Attributes:
        first: The keys at the start.

    Raises:
        HSMError: The file is unreadable or not valid.
    """

    def __init__(
        self,
        issuer: str,
        jwks_file: Path | None,
        rules: TokenRules,
        use: Callable[[TokenTrust], None],
        on_change: Callable[[str], None],
        declare: Callable[[], object] = lambda: None,
    ) -> None:
        self._source = TokenSource(
            jwks_file,
            bytes,
            rules,
            is_fetching=jwks_file is None,
            load=load_key_set,
            still=still_in_key_set,
        )
        trust = self._source.read()
        self.first = public_of(issuer, trust)
        self._watch = TokenWatch(
            self._source,
            trust,
            lambda now: use(public_of(issuer, now)),
            on_change,
            declare,
        )

    async def run(self, interval_seconds: float) -> None:
        """Watch for changed keys until cancelled."""
        await self._watch.run(interval_seconds)

    def take(self, data: bytes | None, problem: str) -> None:
        """Use the result of a fetch of the keys; then call `look`."""
        self._source.take(data, problem)

    async def look(self) -> str:
        """Apply the current keys; return the fault, or an empty text."""
        return await self._watch.look()


def public_of(issuer: str, trust: TokenTrust) -> TokenTrust:
    """Return the trust of an issuer in its public keys; a secret is nobody's proof."""
    keys = tuple(key for key in trust.keys if key.algorithm is not Algorithm.HS256)
    return TokenTrust(keys, trust.rules, issuer)
