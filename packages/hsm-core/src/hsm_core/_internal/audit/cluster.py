# SPDX-License-Identifier: MIT
"""
Verification of all audit logs of a cluster together.

Each log is verified by itself first. What the logs say of each other is checked then:
that no log, and no end of one, is missing that another one names, that no use was
decided in ignorance of a change that its log had seen, that each log names the growth
of the others in time, and that no intent was left open by a node that died.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from typing import Final, NamedTuple, Protocol

import msgspec

from hsm_core._internal.audit.baseline import KnownKeys
from hsm_core._internal.audit.facts import FactsTrack, facts_line_of, named_by, parse
from hsm_core._internal.audit.heads import HEADS
from hsm_core._internal.audit.reasons import Reason, faults_of, tampered
from hsm_core._internal.audit.record import (
    MEMBERS,
    TIME,
    changes_end,
    event_of,
    leaf_hash,
)
from hsm_core._internal.audit.uses import Line
from hsm_core._internal.audit.verify import OfflineVerification, StoredLog, verify_log
from hsm_core.model import AuditEvent, HeadsDetail, LogHead, Phase
from hsm_core.operations import OPERATIONS, Effect

_LATE: Final = 10_000_000
"""Microseconds of a log's activity after which growth of another must be named."""

_GAP: Final = 5_000_000
"""Microseconds of a pause between two records that count as activity."""

_DEAD: Final = 30_000_000
"""Microseconds after which an intent without outcome is no longer in progress."""

_FACTS_KEPT: Final = 4096
_LOOKED_AT: Final = 16
_HEADS_KIND: Final = b'"kind":"%b"' % HEADS.encode()
_START_KINDS: Final = (b'"kind":"system.start"', b'"kind":"system.resume"')
_OF_LEDGER: Final = re.compile(rb'"kind":"(?:system\.ledger|PurgeVersion)"')
_REVISION: Final = re.compile(rb',"revision":([0-9]+)')
_KIND: Final = re.compile(rb'"kind":"([A-Za-z]+)"')
_USES: Final = frozenset(
    operation.__name__.encode()
    for operation in OPERATIONS
    if operation.effect is Effect.USE
)


class NamedLog(Protocol):
    """
    Log of a cluster, to be verified with the others.

    Attributes:
        log_id: 32 hex digits.
        node: Node that writes it.
        stored: Its records.
    """

    log_id: str
    node: str
    stored: StoredLog

    def entries(self, start_seq: int, limit: int, /) -> Sequence[tuple[int, bytes]]:
        """Return up to *limit* entries from *start_seq* on, with their numbers."""
        ...


class Note(Protocol):
    """Function that is given a record, and whether it is the first of its log."""

    def __call__(self, event: AuditEvent, *, is_first: bool) -> None:
        """Note it."""
        ...


class VerifiedLog(msgspec.Struct, frozen=True):
    """Result of verifying one log of a cluster, and the node that writes it."""

    node: str
    log: OfflineVerification


class _Change(NamedTuple):
    seq: int
    key_id: str
    revision: int
    generation: int


class _Summary:
    """
    Content of one log, apart from its uses.

    Attributes:
        changes: Changes of keys, in order.
        open: Sequence numbers of intents without outcome, by operation.
        settled: Log and operation of the intents of others that it settled.
        last_time: Of the newest record, in microseconds since 1970.
        is_begun: Whether a record was looked at.
    """

    def __init__(self) -> None:
        self.changes: list[_Change] = []
        self.open: dict[str, int] = {}
        self.settled: set[tuple[str, str]] = set()
        self.last_time = 0
        self.is_begun = False
        self._keys = KnownKeys()

    def look(self, record: bytes, seq: int) -> None:
        """Note a good record."""
        if not changes_end(record):
            return
        event = event_of(record, seq)
        if event.phase is Phase.INTENT:
            self.open[event.operation_id] = seq
        elif event.phase is Phase.OUTCOME:
            self.open.pop(event.operation_id, None)
            if event.intent_log:
                self.settled.add((event.intent_log, event.operation_id))
        if event.revision and self._keys.note(event):
            change = _Change(seq, event.key_id, event.revision, event.generation)
            self.changes.append(change)


def verify_logs(
    logs: Sequence[NamedLog],
    hmac_key: bytes | None,
    progress: Callable[[int], None] | None = None,
    look: Callable[[AuditEvent], None] | None = None,
    note: Note | None = None,
) -> list[VerifiedLog]:
    """
    Verify all logs of a cluster.

    Args:
        logs: All of them, in one state.

        hmac_key: Their key; None checks the chains only.

        progress: Called now and then with the number of records verified.

        look: Called with each good record; its exceptions end the verification.

        note: Called with those that are about the retention ledger, and with the first
            of each log.

    Returns:
        The result of each log, in the order given.

    Raises:
        AuditTamperedError: A log is damaged, or the logs contradict each other; besides
            ``seq`` and ``reason``, ``facts`` name the log as ``log_id``.
        AuditUnavailableError: They can't be read now.
    """
    found: list[VerifiedLog] = []
    summaries: dict[str, _Summary] = {}
    done = 0
    for log in logs:
        summary = summaries[log.log_id] = _Summary()
        before = done

        def see(record: bytes, seq: int, summary: _Summary = summary) -> None:
            is_first, summary.is_begun = not summary.is_begun, True
            summary.look(record, seq)
            if note is not None and (is_first or _OF_LEDGER.search(record)):
                note(event_of(record, seq), is_first=is_first)
            if look is not None:
                look(event_of(record, seq))

        def show(count: int, before: int = before) -> None:
            if progress is not None:
                progress(before + count)

        with _about(log):
            verified = verify_log(
                log.stored, hmac_key, show, see, looks_at_uses=look is not None
            )
        for _, entry in log.entries(verified.head_seq, 1):
            summary.last_time = int(entry[TIME])
        found.append(VerifiedLog(log.node, verified))
        done += verified.records
    if hmac_key is not None:
        _check_intents(logs, summaries)
        for log in logs:
            with _about(log):
                _Crossing(log, logs, found, summaries).check()
    return found


def _about(log: NamedLog) -> AbstractContextManager[None]:
    """Name a log in the faults that are found in it."""
    return faults_of(log.log_id, f" of node {log.node}")


def _check_intents(logs: Sequence[NamedLog], summaries: Mapping[str, _Summary]) -> None:
    """Check that intents of nodes that died were settled, by whichever node."""
    settled = set[tuple[str, str]]().union(*(s.settled for s in summaries.values()))
    newest = max((s.last_time for s in summaries.values()), default=0)
    for log in logs:
        summary = summaries[log.log_id]
        left = [
            seq
            for operation_id, seq in summary.open.items()
            if (log.log_id, operation_id) not in settled
        ]
        if left and newest - summary.last_time > _DEAD:
            with _about(log):
                raise tampered(Reason.UNSETTLED, min(left))


class _Uncovered(NamedTuple):
    """
    Oldest record of another log that was not named yet.

    Attributes:
        time: Its time.
        since: Activity of the log that should name it, when it was active after that;
            None before.
    """

    time: int
    since: int | None


class _Crossing:
    """
    What one log says of the others, followed record by record.

    Args:
        log: The log.

        logs: All of them.

        found: Results of their verification.

        summaries: Content of each.
    """

    def __init__(
        self,
        log: NamedLog,
        logs: Sequence[NamedLog],
        found: Sequence[VerifiedLog],
        summaries: Mapping[str, _Summary],
    ) -> None:
        self._log = log
        self._others = {o.log_id: o for o in logs if o.log_id != log.log_id}
        self._sizes = {
            o.log_id: (f.log.first_seq, f.log.head_seq + 1)
            for o, f in zip(logs, found, strict=True)
        }
        self._summaries = summaries
        self._history = _history(summaries)
        self._own = iter(summaries[log.log_id].changes)
        self._next_own = next(self._own, None)
        self._seen = dict.fromkeys(self._others, 0)
        self._covered: dict[str, int] = {}
        self._facts: dict[bytes, tuple[str, int]] = {}
        self._active = self._time = 0
        self._uncovered: dict[str, _Uncovered] = {}
        self._seq = -1
        if not self._sizes[log.log_id][0]:
            for other in self._others:
                self._await(other, self._sizes[other][0])

    def check(self) -> None:
        """
        Follow the log.

        Raises:
            AuditTamperedError: A use was decided in ignorance of a change, another log
                is missing or shorter than it was, or its growth was not named in time.
        """
        stored = self._log.stored
        self._seq = self._sizes[self._log.log_id][0] - 1
        stored.follow_uses = self._follow_uses
        with closing(stored.lines(self._seq + 1)) as lines:
            for entry in lines:
                self._seq += 1
                stored.facts.check(entry, self._seq)
                if entry.startswith(_START_KINDS, MEMBERS):
                    self._restart()
                self._step(entry[TIME])
                if entry.startswith(_HEADS_KIND, MEMBERS):
                    self._note_heads(stored.joined(entry))
                else:
                    self._check_use(entry)

    def _follow_uses(self, lines: Sequence[Line], _facts: FactsTrack) -> int:
        for line in lines:
            self._seq += 1
            entry = line[0][1:]
            self._step(entry[TIME])
            self._check_use(entry)
        return len(lines)

    # Uses and changes

    def _check_use(self, entry: bytes) -> None:
        while self._next_own is not None and self._next_own.seq <= self._seq:
            self._cover(self._next_own)
            self._next_own = next(self._own, None)
        kind = _KIND.match(entry, MEMBERS)
        if kind is None or kind[1] not in _USES or b',"code":"' in entry:
            return
        key_id, generation = self._key_of(entry)
        history = self._history.get(key_id)
        if history is None:
            return
        found = _REVISION.search(entry)
        revision = int(found[1]) if found else 0
        at = bisect_right(history, (revision, _LAST)) - 1
        is_older = at >= 0 and generation < history[at][1]
        if is_older or revision < self._covered.get(key_id, 0):
            raise tampered(Reason.STALE_USE, self._seq)

    def _key_of(self, entry: bytes) -> tuple[str, int]:
        """Return key and generation of a use."""
        digest = named_by(entry)
        known = self._facts.get(digest)
        if known is None:
            line = facts_line_of(self._log.stored.joined(entry))
            facts = parse(line)
            known = ("", 0) if facts is None else (facts.key_id, facts.generation)
            if len(self._facts) >= _FACTS_KEPT:
                self._facts.clear()
            self._facts[digest] = known
        return known

    def _cover(self, change: _Change) -> None:
        before = self._covered.get(change.key_id, 0)
        self._covered[change.key_id] = max(before, change.revision)

    # Heads of the other logs

    def _note_heads(self, record: bytes) -> None:
        detail = event_of(record, self._seq).detail
        if not isinstance(detail, HeadsDetail):
            raise tampered(Reason.EVENT, self._seq)
        for head in detail.logs:
            other = self._others.get(head.log_id)
            if other is None:
                raise tampered(Reason.LOG_MISSING, self._seq)
            self._check_head(other, head)
            changes, at = self._summaries[head.log_id].changes, self._seen[head.log_id]
            while at < len(changes) and changes[at].seq < head.size:
                self._cover(changes[at])
                at += 1
            self._seen[head.log_id] = at
            self._await(head.log_id, head.size)

    def _check_head(self, other: NamedLog, head: LogHead) -> None:
        first, size = self._sizes[head.log_id]
        if head.size > size:
            with _about(other):
                raise tampered(Reason.CUT, size)
        if head.size > first:
            for seq, entry in other.entries(head.size - 1, 1):
                if (seq, leaf_hash(entry)) != (head.size - 1, head.leaf_hash):
                    with _about(other):
                        raise tampered(Reason.HEADS, head.size - 1)

    def _await(self, log_id: str, size: int) -> None:
        """Note the first record of a log, from a number on, that must be named."""
        self._uncovered.pop(log_id, None)
        for seq, entry in _from(self._others[log_id], size):
            if seq >= self._sizes[log_id][1]:
                return
            if not entry.startswith(_HEADS_KIND, MEMBERS):
                self._uncovered[log_id] = _Uncovered(int(entry[TIME]), None)
                return

    def _restart(self) -> None:
        """Give a node that starts or can write again a new time to name the others."""
        self._time = 0
        self._uncovered = {
            log_id: waiting._replace(since=None)
            for log_id, waiting in self._uncovered.items()
        }

    def _step(self, written: bytes) -> None:
        """Move on to the next record, and check that nothing was left unnamed."""
        time = int(written)
        if self._time:
            self._active += min(max(time - self._time, 0), _GAP)
        self._time = max(time, self._time)
        for log_id, waiting in self._uncovered.items():
            if waiting.since is None:
                if waiting.time <= time:
                    since = self._active
                    self._uncovered[log_id] = waiting._replace(since=since)
            elif self._active - waiting.since > _LATE:
                raise tampered(Reason.UNNAMED, self._seq)


_LAST: Final = 2**63


def _history(
    summaries: Mapping[str, _Summary],
) -> dict[str, list[tuple[int, int]]]:
    """Return revision and generation of the changes of each key, in order."""
    found: dict[str, list[tuple[int, int]]] = {}
    for summary in summaries.values():
        for change in summary.changes:
            pair = (change.revision, change.generation)
            found.setdefault(change.key_id, []).append(pair)
    for pairs in found.values():
        pairs.sort()
    return found


def _from(log: NamedLog, seq: int) -> Iterator[tuple[int, bytes]]:
    """Return the entries of a log from a number on, a few at a time."""
    while found := log.entries(seq, _LOOKED_AT):
        yield from found
        seq = found[-1][0] + 1
