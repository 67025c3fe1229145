# SPDX-License-Identifier: MIT
"""
Token key watch: applies changed keys, and keeps the last valid ones.

A source that is not valid adds no key. Keys that it no longer names are removed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from hsm_core.errors import ConfigurationError, HSMError
from hsm_server.identity.tokens.source import KeySource
from hsm_server.identity.tokens.trust import TokenTrust
from hsm_server.system.standard_streams import sentence

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
    """

    def __init__(
        self,
        source: KeySource,
        trust: TokenTrust,
        use: Callable[[TokenTrust], None],
        on_change: Callable[[str], None],
    ) -> None:
        self._source = source
        self._trust = trust
        self._use = use
        self._on_change = on_change
        self._problem = ""
        self._lock = asyncio.Lock()

    async def run(self, interval_seconds: float) -> None:
        """
        Watch for changes until cancelled, if the source is a file.

        Args:
            interval_seconds: Within this time a change is in force.
        """
        while self._source.is_file:
            # A change is read twice, which has its place in the interval.
            await asyncio.sleep(max(interval_seconds / 2, interval_seconds - _AHEAD))
            await self.look()

    async def look(self) -> str:
        """Put in force what is there now; return why not, or nothing."""
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
            if trust != self._trust:
                self._trust = trust
                self._use(trust)
                self._on_change("")
                self._problem = ""
            self._note(self._source.trouble)
            return self._problem

    async def _withdraw(self) -> None:
        """Drop keys that a source no longer names which can't be used as a whole."""
        former = self._trust
        with contextlib.suppress(Exception):
            kept = await self._settled(lambda: self._source.still_named(former), former)
            if kept != former:
                self._trust = kept
                self._use(kept)

    async def _settled(
        self, read: Callable[[], TokenTrust], known: TokenTrust
    ) -> TokenTrust:
        """
        Return the content of the source after two identical reads.

        Args:
            read: Reads it.

            known: What it may say at once, for it is no news.

        Raises:
            HSMError: It can't be used, or changes all the time.
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
