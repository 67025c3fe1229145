# SPDX-License-Identifier: MIT
"""Files of certificates, keys and client rules, watched by content."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import msgspec

from hsm_core.errors import HSMError
from hsm_server.config.exit_codes import ListenError
from hsm_server.config.settings import ClientSettings, TLSSettings
from hsm_server.system.standard_streams import sentence
from hsm_server.tls.acme.first import first_pair
from hsm_server.tls.alarms import Alarms
from hsm_server.tls.board import Board
from hsm_server.tls.files import (
    Contents,
    digest_of,
    parse_client,
    parse_pairs,
    read_client_files,
    read_pair_files,
)
from hsm_server.tls.settling import settled
from hsm_server.tls.state import ServerPair, TLSState

Edit = Callable[[TLSState], TLSState]
"""Returns a changed state."""

_AGAIN_SECONDS: Final = 5.0
"""Delay before unusable files are read again: they may be half-written."""

_CLIENT_SECONDS: Final = 30.0
"""
Maximum interval between checks of client rules, so that a revocation takes effect soon.
"""


def now_utc() -> datetime:
    """Return the time of day."""
    return datetime.now(UTC)


def first_state(settings: TLSSettings) -> TLSState:
    """
    Return the state to begin with.

    Raises:
        UnsafeFileModeError: A private key is not its owner's alone.
        ListenError: Files can't be used; see `hsm_server.tls.files`.
    """
    state = TLSState(generation=0, pairs=_first_pairs(settings))
    if settings.client is None:
        return state
    contents = settled(partial(read_client_files, settings.client))
    edit, problem = _edit_client(settings.client, contents, state)
    if problem:
        raise ListenError(problem)
    return edit(state)


def _first_pairs(settings: TLSSettings) -> tuple[ServerPair, ...]:
    if settings.acme is not None:
        return (first_pair(settings.acme, now_utc()),)
    contents = settled(partial(read_pair_files, settings.pairs))
    return parse_pairs(settings.pairs, contents, now_utc())


def file_sources(settings: TLSSettings, alarms: Alarms) -> list[FileSource]:
    """Return a task for each part of the state that files decide about."""
    interval = settings.reload_interval_seconds
    found = []
    if settings.pairs:
        found.append(
            FileSource(
                "certificate",
                partial(read_pair_files, settings.pairs),
                partial(_edit_pairs, settings),
                interval,
                alarms,
            )
        )
    if settings.client is not None:
        found.append(
            FileSource(
                "clients",
                partial(read_client_files, settings.client),
                partial(_edit_client, settings.client),
                min(interval, _CLIENT_SECONDS),
                alarms,
            )
        )
    return found


class FileSource:
    """
    Task of the TLS manager: loads some files into the state.

    A change takes effect after two identical reads. Unusable files start an alarm,
    which ends with usable ones. An edit that withdraws trust takes effect even if it
    has a problem.

    Args:
        part: Name of its alarms.

        read: Returns the content of the files; may raise `HSMError`, and block.

        parse: Returns the change of the state and a problem, or an empty text; raises
            `HSMError` if nothing is to change.

        interval_seconds: Interval between checks; 0 checks only at startup and on
            reload.

        alarms: Receive the faults of the files.
    """

    def __init__(
        self,
        part: str,
        read: Callable[[], Contents],
        parse: Callable[[Contents, TLSState], tuple[Edit, str]],
        interval_seconds: float,
        alarms: Alarms,
    ) -> None:
        self._part = part
        self._read = read
        self._parse = parse
        self._interval_seconds = interval_seconds
        self._alarms = alarms
        self._lock = asyncio.Lock()
        self._digest = b""
        alarms.watch(part)

    async def run(self, board: Board, /) -> None:
        """See `Task`."""
        while True:
            seconds = self._interval_seconds
            try:
                await self._look(board)
            except HSMError:
                # The alarm is already active.
                seconds = min(seconds, _AGAIN_SECONDS)
            if not self._interval_seconds:
                await asyncio.Event().wait()
            await asyncio.sleep(seconds)

    async def reload(self, board: Board, /) -> None:
        """See `Task`."""
        await self._look(board)

    async def _look(self, board: Board) -> None:
        async with self._lock:
            try:
                await self._use(board)
            except HSMError as error:
                self._alarms.begin(self._part, sentence(error))
                raise
            self._alarms.end(self._part)

    async def _use(self, board: Board) -> None:
        """Put in force what is not yet."""
        contents = await asyncio.to_thread(settled, self._read, self._digest)
        digest = digest_of(contents)
        if digest != self._digest:
            # A long list of revoked certificates takes its time.
            edit, problem = await asyncio.to_thread(self._parse, contents, board.state)
            await board.change(edit)
            if problem:
                raise ListenError(problem)
            self._digest = digest


def _edit_pairs(
    settings: TLSSettings, contents: Contents, state: TLSState
) -> tuple[Edit, str]:
    pairs = parse_pairs(settings.pairs, contents, now_utc())
    return lambda state: msgspec.structs.replace(
        state, pairs=_with_staples(pairs, state.pairs)
    ), ""


def _edit_client(
    settings: ClientSettings, contents: Contents, state: TLSState
) -> tuple[Edit, str]:
    rules, problem = parse_client(settings, contents, now_utc(), state.client)
    return lambda state: msgspec.structs.replace(state, client=rules), problem


def _with_staples(
    pairs: Sequence[ServerPair], before: Sequence[ServerPair]
) -> tuple[ServerPair, ...]:
    """Return pairs with the staples that their certificates have had."""
    staples = {pair.chain[0]: pair.staple for pair in before}
    return tuple(
        msgspec.structs.replace(pair, staple=staples.get(pair.chain[0], b""))
        for pair in pairs
    )
