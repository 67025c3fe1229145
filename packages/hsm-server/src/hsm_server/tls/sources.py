# SPDX-License-Identifier: MIT
"""Tasks of the TLS manager that read files, and watch expiry and revocation lists."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
from cryptography import x509

from hsm_core.errors import HSMError
from hsm_server.certificates import comparable_name
from hsm_server.config.exit_codes import ListenError
from hsm_server.config.tls import ClientSettings, TLSSettings
from hsm_server.system.standard_streams import sentence
from hsm_server.tls.acme.cache import first_pair
from hsm_server.tls.certificates import kind_of
from hsm_server.tls.files import (
    Contents,
    digest_of,
    parse_client,
    parse_pairs,
    read_client_files,
    read_pair_files,
    read_stable,
)
from hsm_server.tls.renewal import renew_at_start
from hsm_server.tls.state import (
    ActiveState,
    Alarms,
    ClientRules,
    Clock,
    ServerPair,
    SystemClock,
    TLSState,
    first_of,
    with_staples,
)

if TYPE_CHECKING:
    from hsm_server.observability.logs import Logger

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
    contents = read_stable(partial(read_client_files, settings.client))
    edit, problem = _edit_client(settings.client, contents, state)
    if problem:
        raise ListenError(problem)
    return edit(state)


def _first_pairs(settings: TLSSettings) -> tuple[ServerPair, ...]:
    if settings.acme is not None:
        return (first_pair(settings.acme, now_utc()),)
    if settings.ca_key is not None:
        renew_at_start(settings.pairs[0].cert, settings.ca_key, now_utc())
    contents = read_stable(partial(read_pair_files, settings.pairs))
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

    async def run(self, active: ActiveState, /) -> None:
        """See `Task`."""
        while True:
            seconds = self._interval_seconds
            try:
                await self._look(active)
            except HSMError:
                # The alarm is already active.
                seconds = min(seconds, _AGAIN_SECONDS)
            if not self._interval_seconds:
                await asyncio.Event().wait()
            await asyncio.sleep(seconds)

    async def reload(self, active: ActiveState, /) -> None:
        """See `Task`."""
        await self._look(active)

    async def _look(self, active: ActiveState) -> None:
        async with self._lock:
            try:
                await self._use(active)
            except HSMError as error:
                self._alarms.begin(self._part, sentence(error))
                raise
            self._alarms.end(self._part)

    async def _use(self, active: ActiveState) -> None:
        """Put in force what is not yet."""
        contents = await asyncio.to_thread(read_stable, self._read, self._digest)
        digest = digest_of(contents)
        if digest != self._digest:
            # A long list of revoked certificates takes its time.
            edit, problem = await asyncio.to_thread(self._parse, contents, active.state)
            # If there is a problem, even the former content would be a change.
            self._digest = b""
            await active.change(edit)
            if problem:
                raise ListenError(problem)
            self._digest = digest


def _edit_pairs(
    settings: TLSSettings, contents: Contents, state: TLSState
) -> tuple[Edit, str]:
    pairs = parse_pairs(settings.pairs, contents, now_utc())

    def edit(state: TLSState) -> TLSState:
        staples = {pair.chain[0]: pair.staple for pair in state.pairs}
        return msgspec.structs.replace(state, pairs=with_staples(pairs, staples))

    return edit, ""


def _edit_client(
    settings: ClientSettings, contents: Contents, state: TLSState
) -> tuple[Edit, str]:
    rules, problem = parse_client(settings, contents, now_utc(), state.client)
    return lambda state: msgspec.structs.replace(state, client=rules), problem


_TICK_SECONDS: Final = 60.0
_LONGEST: Final = timedelta(days=14)
_EXPIRY: Final = "expiry"
_CLIENT_CRL: Final = "client_crl"
_SOON: Final = 0.1
"""Part of a list's lifetime that remains when its end is logged."""


class ExpiryWatch:
    """
    Expiry watch, a task of the TLS manager that changes nothing.

    An alarm starts when less than a tenth of a certificate's lifetime remains, at most
    14 days, and when all client CAs have expired. Another is for revocation lists that
    have expired, or belong to no client CA.

    Args:
        alarms: Receive the alarms.

        logger: Logs once that a list expires soon.

        clock: Wall clock.
    """

    def __init__(
        self, alarms: Alarms, logger: Logger, clock: Clock | None = None
    ) -> None:
        self._alarms = alarms
        self._logger = logger
        self._clock = clock or SystemClock()
        self._warned: set[bytes] = set()
        alarms.watch(_EXPIRY)
        alarms.watch(_CLIENT_CRL)

    async def run(self, active: ActiveState, /) -> None:
        """See `Task`."""
        while True:
            generation = active.state.generation
            wait = self._look(active)
            await first_of(active.past(generation), self._clock.sleep(wait))

    async def reload(self, active: ActiveState, /) -> None:
        """See `Task`."""
        self._look(active)

    def _look(self, active: ActiveState) -> float:
        """Begin or end the alarms; return when to look again, in seconds."""
        pairs, client, now = active.state.pairs, active.state.client, self._clock.now()
        problems = [pair_problem(pair, now) for pair in pairs]
        problems.append(client_problem(client, now))
        self._alarms.report(_EXPIRY, " ".join(filter(None, problems)))
        lists = client.revocation_lists if client is not None else ()
        issuers = _names(client.authorities if client is not None else ())
        wait, problems = _TICK_SECONDS, []
        for der in lists:
            crl = x509.load_der_x509_crl(der)
            problem = _list_problem(crl, issuers, now)
            problems.append(problem)
            if not problem and crl.next_update_utc is not None:
                left = crl.next_update_utc - now
                wait = min(wait, left.total_seconds())
                self._warn_in_time(der, crl, left)
        self._warned &= set(lists)
        self._alarms.report(_CLIENT_CRL, " ".join(filter(None, problems)))
        return wait

    def _warn_in_time(
        self, der: bytes, crl: x509.CertificateRevocationList, left: timedelta
    ) -> None:
        ends_at = crl.next_update_utc
        if ends_at is None or der in self._warned:
            return
        if left <= (ends_at - crl.last_update_utc) * _SOON:
            self._warned.add(der)
            self._logger.warning(
                "revocation list ends soon",
                issuer=_issuer_of(crl),
                ends_at=ends_at.isoformat(),
            )


def pair_problem(pair: ServerPair, now: datetime) -> str:
    """Return that a certificate expires soon or has expired, or an empty text."""
    chain = [x509.load_der_x509_certificate(der) for der in pair.chain]
    first = min(chain, key=lambda certificate: certificate.not_valid_after_utc)
    ends, begins = first.not_valid_after_utc, first.not_valid_before_utc
    if ends - now > min(_LONGEST, (ends - begins) / 10):
        return ""
    verb = "expires" if ends > now else "expired"
    return f"The {kind_of(chain[0])} certificate {verb} at {ends.isoformat()}."


def describe_pairs(state: TLSState) -> str:
    """Return kind, names and end of each certificate of the listener."""
    parts = []
    for pair in state.pairs:
        leaf = x509.load_der_x509_certificate(pair.chain[0])
        ends = leaf.not_valid_after_utc.date().isoformat()
        parts.append(f"{kind_of(leaf)} for {_hosts_of(leaf)}, valid until {ends}")
    return "; ".join(parts)


def _hosts_of(certificate: x509.Certificate) -> str:
    try:
        found = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return "no host name"
    return ", ".join(str(name.value) for name in found.value)


def client_problem(rules: ClientRules | None, now: datetime) -> str:
    """Return that no client CA is valid any longer, or an empty text."""
    if rules is None or not rules.authorities:
        # Files that name no CA are an alarm of their own.
        return ""
    found = map(x509.load_der_x509_certificate, rules.authorities)
    if any(ca.not_valid_after_utc > now for ca in found):
        return ""
    return "All client CAs have expired. All client certificates are rejected."


def _list_problem(
    crl: x509.CertificateRevocationList, issuers: set[bytes], now: datetime
) -> str:
    ends_at = crl.next_update_utc
    if comparable_name(crl.issuer) not in issuers:
        return (
            f"The revocation list of {_issuer_of(crl)} is from no CA of --client-ca. "
            "Remove it from --client-crl."
        )
    if ends_at is not None and ends_at <= now:
        return (
            f"The revocation list of {_issuer_of(crl)} expired at "
            f"{ends_at.isoformat()}. Client certificates of this issuer are rejected."
        )
    return ""


def _names(authorities: Sequence[bytes]) -> set[bytes]:
    found = map(x509.load_der_x509_certificate, authorities)
    return {comparable_name(authority.subject) for authority in found}


def _issuer_of(crl: x509.CertificateRevocationList) -> str:
    return crl.issuer.rfc4514_string()[:128]
