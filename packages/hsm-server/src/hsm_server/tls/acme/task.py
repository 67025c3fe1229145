# SPDX-License-Identifier: MIT
"""ACME task: first certificate and renewals."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec
from cryptography import x509

from hsm_core.errors import HSMError
from hsm_server.config.tls import ACMESettings
from hsm_server.observability.logs import Logger
from hsm_server.observability.metrics import Metrics
from hsm_server.system.standard_streams import sentence
from hsm_server.tls.acme.authority import Authority, Failure, FailureKind
from hsm_server.tls.acme.cache import Cache, Stored
from hsm_server.tls.acme.challenges import HTTPAnswers
from hsm_server.tls.acme.ordering import (
    call,
    fulfil,
    latest_renewal,
    pause_seconds,
    retry_seconds,
    show_challenges,
    usual_renewal,
)
from hsm_server.tls.state import ActiveState, Alarms, TLSState

T = TypeVar("T")

_PART: Final = "acme"
_CACHE_PART: Final = "acme_cache"
_LONGEST_SLEEP_SECONDS: Final = 3600.0
"""The time of day may be set meanwhile."""

_ASK_AGAIN_SECONDS: Final = (60.0, 24 * 3600.0)
"""
Shortest and longest interval between renewal queries (RFC 9773, section 4.3.2).
"""

_AFTER_FAILURE_SECONDS: Final = 6 * 3600.0
_UNEXPECTED_SECONDS: Final = 600.0


class ACMETask:
    """
    Task of the TLS manager: issues and renews a certificate.

    The current certificate stays in use until a better one is ready. An issued
    certificate is checked like files, and stored before use. If storing fails, it is
    used anyway, and storing is retried.

    Args:
        settings: Names and CA.

        alarms: Receive failures.

        metrics: Count orders, and show the time of the next.

        logger: Logs issued certificates.

        bound: Listening socket for challenges over HTTP, if there is one.
    """

    def __init__(
        self,
        settings: ACMESettings,
        alarms: Alarms,
        metrics: Metrics,
        logger: Logger,
        bound: socket.socket | None = None,
    ) -> None:
        self._settings = settings
        self._alarms = alarms
        self._metrics = metrics
        self._logger = logger
        self._cache = Cache(settings.cache, settings.directory)
        self._answers = None if bound is None else HTTPAnswers(bound)
        self._unkept: Stored | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._not_before = self._paused_until = 0.0
        self._renew_at = self._ask_at = 0.0
        self._has_certificate = False
        self._asked_about: x509.Certificate | None = None
        self._wake = asyncio.Event()
        alarms.watch(_PART)
        alarms.watch(_CACHE_PART)

    async def run(self, active: ActiveState, /) -> None:
        """See `Task`."""
        async with asyncio.TaskGroup() as group:
            if self._answers is not None:
                group.create_task(self._answers.run())
            await self._keep_looking(active)

    async def reload(self, active: ActiveState, /) -> None:
        """See `Task`; retries a waiting order at once, unless the CA asked to wait."""
        self._retry_at = self._not_before = self._ask_at = 0.0
        self._wake.set()

    async def _keep_looking(self, active: ActiveState) -> None:
        # They may be of a TLS manager that was killed.
        await show_challenges(active, [])
        while True:
            try:
                seconds = await self._look(active)
            except Failure as failure:
                seconds = await self._end_badly(failure)
            except Exception:
                # Whatever it is, a CA is not to suffer from it.
                self._retry_at = time.time() + _UNEXPECTED_SECONDS
                raise
            await self._sleep(min(max(0.0, seconds), _LONGEST_SLEEP_SECONDS))

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _look(self, active: ActiveState) -> float:
        """Do what there is to be done; return after how many seconds to look again."""
        stored = await self._newest()
        if stored is not None and not _is_good(stored):
            # It has expired, or is not valid yet.
            stored = None
        self._has_certificate = stored is not None
        if stored is not None:
            # Where that fails, another one would fare no better.
            await self._use(active, stored)
        due_at, now = await self._due_at(stored), time.time()
        if due_at > now:
            self._note_health()
        kept = await _read(self._cache.pause)
        self._paused_until = max(self._paused_until, kept)
        next_at = max(due_at, self._paused_until, self._retry_at, self._not_before)
        self._show_next(next_at)
        if next_at <= now:
            await self._order(active)
            return 0.0
        return min(next_at, self._ask_at if stored is not None else next_at) - now

    async def _newest(self) -> Stored | None:
        """Return the newest certificate; stores it if that has failed so far."""
        if self._unkept is None:
            return await _read(self._cache.certificate)
        stored = self._unkept
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self._cache.keep_certificate, stored)
            self._unkept = None
            self._alarms.end(_CACHE_PART)
        return stored

    async def _due_at(self, stored: Stored | None) -> float:
        """Return when to order, in Unix time; 0 is at once."""
        if stored is None or not stored.has_names(self._settings.names):
            return 0.0
        if stored.leaf != self._asked_about or time.time() >= self._ask_at:
            await self._ask_when(stored.leaf)
        return self._renew_at

    async def _ask_when(self, leaf: x509.Certificate) -> None:
        """Learn when to renew; where the CA does not say, it is not asked often."""
        now = time.time()
        if leaf != self._asked_about:
            self._renew_at = usual_renewal(leaf)
        self._asked_about, self._ask_at = leaf, now + _AFTER_FAILURE_SECONDS
        try:
            async with self._entered() as authority:
                when, again = await call(authority.renewal, leaf)
        except Failure:
            return
        soonest, latest = _ASK_AGAIN_SECONDS
        self._ask_at = min(max(again, now + soonest), now + latest)
        if when is not None:
            self._renew_at = min(when, latest_renewal(leaf))

    async def _order(self, active: ActiveState) -> None:
        """
        Order a certificate, keep it, use it.

        Raises:
            Failure: Something of that can't be done.
        """
        try:
            stored = await self._ordered(active)
            self._not_before = time.time() + pause_seconds(stored.leaf)
            if await self._is_to_be_kept(stored):
                await self._keep(stored)
            await self._use(active, stored)
        except Failure as failure:
            self._metrics.count_order(failure.kind)
            raise
        self._metrics.count_order("issued")
        self._logger.info(
            "certificate issued",
            names=self._settings.names,
            not_after=stored.leaf.not_valid_after_utc.isoformat(),
        )
        self._note_health()

    async def _ordered(self, active: ActiveState) -> Stored:
        try:
            return await self._ordered_once(active)
        except Failure as failure:
            if failure.kind is not FailureKind.NO_ACCOUNT:
                raise
        # The CA does not know the account: register it again.
        await asyncio.to_thread(self._cache.forget_account)
        return await self._ordered_once(active)

    async def _ordered_once(self, active: ActiveState) -> Stored:
        async with self._entered() as authority:
            names = self._settings.names
            return await fulfil(authority, names, active, self._answers)

    @contextlib.asynccontextmanager
    async def _entered(self) -> AsyncIterator[Authority]:
        """Return the CA with a registered account."""
        settings, cache = self._settings, self._cache
        key = await _read(cache.account_key)
        if key is None:
            key = await self._kept(cache.new_account_key)
        known = await _read(cache.account)
        authority = await call(Authority, settings.directory, settings.authorities, key)
        with contextlib.closing(authority):
            account = await call(authority.enter, known, settings.contacts)
            if account != known:
                await self._kept(lambda: cache.keep_account(account))
            yield authority

    async def _is_to_be_kept(self, stored: Stored) -> bool:
        """Return whether nothing better would be lost: it is shown after a restart."""
        if _is_good(stored):
            return True
        # Where there is none, it may be good when its time comes.
        before = await self._newest()
        return before is None or not _is_good(before)

    async def _keep(self, stored: Stored) -> None:
        try:
            await asyncio.to_thread(self._cache.keep_certificate, stored)
        except OSError as error:
            # It is paid for: it is used, and kept when there is room.
            self._unkept = stored
            self._alarms.begin(_CACHE_PART, _not_kept(error))

    async def _kept(self, keep: Callable[[], T]) -> T:
        """Keep what must be before anything is ordered."""
        try:
            return await asyncio.to_thread(keep)
        except OSError as error:
            raise Failure(FailureKind.STORAGE, _not_kept(error)) from error

    async def _use(self, active: ActiveState, stored: Stored) -> None:
        """Put a certificate in force, if it can be used and is not."""
        try:
            pair = stored.pair(datetime.now(UTC))
        except HSMError as error:
            raise Failure(FailureKind.UNUSABLE, sentence(error)) from error

        def edit(state: TLSState) -> TLSState:
            if [shown.chain for shown in state.pairs] == [pair.chain]:
                # With its staple.
                return state
            return msgspec.structs.replace(state, pairs=(pair,))

        try:
            await active.change(edit)
        except HSMError as error:
            raise Failure(FailureKind.UNUSABLE, sentence(error)) from error

    def _note_health(self) -> None:
        self._failures, self._retry_at = 0, 0.0
        self._alarms.end(_PART)

    async def _end_badly(self, failure: Failure) -> float:
        """Report a failure; return the delay."""
        self._failures += 1
        self._alarms.begin(_PART, failure.reason)
        seconds = retry_seconds(
            failure, self._failures, has_certificate=self._has_certificate
        )
        self._retry_at = max(time.time() + seconds, failure.retry_at)
        if failure.retry_at:
            self._paused_until = failure.retry_at
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._cache.keep_pause, failure.retry_at)
        self._show_next(self._retry_at)
        return self._retry_at - time.time()

    def _show_next(self, instant: float) -> None:
        host = urlsplit(self._settings.directory).netloc
        self._metrics.show_next_order(host, max(instant, time.time()))


def _is_good(stored: Stored) -> bool:
    try:
        stored.pair(datetime.now(UTC))
    except HSMError:
        return False
    return True


async def _read(read: Callable[[], T]) -> T:
    """Read from the cache, where nothing is missing because it can't be read now."""
    try:
        return await asyncio.to_thread(read)
    except OSError as error:
        reason = f"Cannot read the ACME cache ({error.strerror})."
        raise Failure(FailureKind.STORAGE, reason) from error


def _not_kept(error: OSError) -> str:
    return f"Cannot write to the ACME cache ({error.strerror})."
