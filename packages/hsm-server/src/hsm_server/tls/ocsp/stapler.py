# SPDX-License-Identifier: MIT
"""OCSP stapler: adds and removes staples of server certificates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence, Set
from datetime import timedelta
from pathlib import Path
from typing import Final

import msgspec

from hsm_core.errors import HSMError
from hsm_server.config.exit_codes import ListenError
from hsm_server.observability.logs import Logger
from hsm_server.observability.metrics import Metrics
from hsm_server.tls.ocsp.fetch import ResponderClient, Responders
from hsm_server.tls.ocsp.request import UnusableError
from hsm_server.tls.ocsp.staples import (
    CertificateStatus,
    ServerCertificate,
    read_staples,
    server_certificate,
)
from hsm_server.tls.state import (
    ActiveState,
    Alarms,
    Clock,
    SystemClock,
    TLSState,
    first_of,
    with_staples,
)

_ASK_SECONDS: Final = 15.0
_TICK_SECONDS: Final = 60.0
"""Interval between reads of files and checks for expired staples."""

REVOKED: Final = "revocation"
MISSING: Final = "staple"
FILES: Final = "staple_file"


class Stapler:
    """
    Task of the TLS manager: keeps a valid staple for each certificate.

    A certificate without a responder needs none. Handshakes never wait: they use the
    staples in the active state.

    Args:
        longest: Maximum time between two queries; zero disables queries.

        files: Responses fetched by another program; while one is valid, no responder is
            queried about its certificate.

        alarms: Receive revoked certificates, missing staples and unusable files.

        metrics: Counters and gauges.

        logger: Logs each failure.

        clock: Clock of all timing.

        asking: Creates the client of responders.
    """

    def __init__(
        self,
        longest: timedelta,
        files: Sequence[Path],
        alarms: Alarms,
        metrics: Metrics,
        logger: Logger,
        clock: Clock | None = None,
        asking: Callable[[Clock], ResponderClient] = Responders,
    ) -> None:
        self._longest = longest
        self._files = files
        self._alarms = alarms
        self._metrics = metrics
        self._logger = logger
        self._clock = clock or SystemClock()
        self._asking = asking
        self._shown: dict[bytes, ServerCertificate] = {}
        self._questions: dict[bytes, asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self._kinds: set[str] = set()
        self._told: Set[bytes] = frozenset()
        for part in (REVOKED, MISSING, FILES):
            alarms.watch(part)

    async def run(self, active: ActiveState, /) -> None:
        """See `Task`."""
        asking = self._asking(self._clock)
        try:
            while True:
                generation = active.state.generation
                self._news.clear()
                self._follow(active.state)
                await self._read_files()
                self._ask_where_due(asking)
                await self._put_up(active)
                self._judge()
                await self._rest(active, generation)
        finally:
            for question in self._questions.values():
                question.cancel()
            self._questions.clear()
            await asking.close()

    async def reload(self, active: ActiveState, /) -> None:
        """
        Read files and ask responders at once.

        Raises:
            ListenError: A file is of no use.
        """
        self._follow(active.state)
        useless = await self._read_files()
        # What is under way may take its time, and then fail.
        for question in self._questions.values():
            question.cancel()
        self._questions.clear()
        for watch in self._watches():
            if not self._is_told_by_file(watch):
                watch.ask_now()
        self._news.set()
        if useless:
            raise ListenError(useless)

    def _watches(self) -> list[CertificateStatus]:
        return [one.watch for one in self._shown.values() if one.watch is not None]

    def _is_told_by_file(self, watch: CertificateStatus) -> bool:
        return watch.subject.fingerprint in self._told

    def _follow(self, state: TLSState) -> None:
        """Know the certificates that are shown now, and forget the others."""
        kept = {}
        for pair in state.pairs:
            leaf = pair.chain[0]
            known = self._shown.get(leaf)
            kept[leaf] = known or server_certificate(pair, self._clock, self._longest)
        for leaf in self._questions.keys() - kept.keys():
            self._questions.pop(leaf).cancel()
        self._shown = kept

    async def _read_files(self) -> str:
        """Hear what files say; return what is wrong with them, or nothing."""
        if not self._files:
            return ""
        watches = {watch.subject.fingerprint: watch for watch in self._watches()}
        subjects = [watch.subject for watch in watches.values()]
        found = await asyncio.to_thread(
            read_staples, self._files, subjects, self._clock.now()
        )
        self._told = found.answers.keys()
        for fingerprint, answer in found.answers.items():
            watches[fingerprint].hear_file(answer)
        useless = " ".join(
            f"The OCSP response {path} is not usable ({fault})."
            for path, fault in found.useless.items()
        )
        self._alarms.report(FILES, useless)
        return useless

    def _ask_where_due(self, asking: ResponderClient) -> None:
        for leaf, question in list(self._questions.items()):
            if question.done():
                del self._questions[leaf]
                question.result()
        for leaf, one in self._shown.items():
            if self._asks(one) and one.watch and leaf not in self._questions:
                if not one.watch.seconds_to_ask:
                    self._questions[leaf] = asyncio.create_task(
                        self._ask(asking, one.watch)
                    )

    def _asks(self, one: ServerCertificate) -> bool:
        return bool(self._longest and one.watch and one.watch.subject.urls)

    async def _ask(self, asking: ResponderClient, watch: CertificateStatus) -> None:
        try:
            answer = await asking.ask(watch.subject, _ASK_SECONDS)
        except UnusableError as error:
            watch.fail(error.fault)
            self._metrics.count_ocsp("server", error.fault)
            self._logger.warning("ocsp failed", about="server", fault=error.fault)
        else:
            watch.hear(answer)
            self._metrics.count_ocsp("server", answer.status)
        finally:
            self._news.set()

    async def _put_up(self, active: ActiveState) -> None:
        """Show the staples that are good now."""
        staples = {
            leaf: one.watch.staple if one.watch else b""
            for leaf, one in self._shown.items()
        }
        try:
            await active.change(
                lambda state: msgspec.structs.replace(
                    state, pairs=with_staples(state.pairs, staples)
                )
            )
        except HSMError as error:
            self._logger.warning("staple not used", reason=str(error))

    def _judge(self) -> None:
        """Show what is wrong, and how many staples there are."""
        shown = self._shown.values()
        revoked = [one for one in shown if one.watch and one.watch.is_revoked]
        self._alarms.report(
            REVOKED,
            " ".join(f"The certificate {one.name} is revoked." for one in revoked),
        )
        problems = [one.problem(is_asking=bool(self._longest)) for one in shown]
        self._alarms.report(MISSING, " ".join(filter(None, problems)))
        self._show_staples()

    def _show_staples(self) -> None:
        ends = dict.fromkeys(self._kinds, 0.0)
        for one in self._shown.values():
            expires_at = one.watch.expires_at if one.watch else None
            ends[one.kind] = expires_at.timestamp() if expires_at else 0.0
        for kind, instant in ends.items():
            self._metrics.show_staple(kind, instant)
        self._kinds = set(ends)

    async def _rest(self, active: ActiveState, generation: int) -> None:
        """Wait until there may be something to do."""
        now = self._clock.now()
        seconds = [_TICK_SECONDS]
        for leaf, one in self._shown.items():
            if one.watch is None:
                continue
            if self._asks(one) and leaf not in self._questions:
                seconds.append(one.watch.seconds_to_ask)
            if one.watch.expires_at is not None:
                seconds.append((one.watch.expires_at - now).total_seconds())
        await first_of(
            active.past(generation), self._news.wait(), self._clock.sleep(min(seconds))
        )
