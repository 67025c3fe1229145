# SPDX-License-Identifier: MIT
"""
What survives a crash: the media of a simulated HSM, and its stores over them.

A store belongs to one life of the HSM. When that is over it writes nothing any more,
whatever the dying program still tries. Each step at which a real disk could be left in
another state is a named point, told before and after it; names are those of the
failpoints of the real stores.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from hsm_core._internal.audit.baseline import Baseline
from hsm_core._internal.audit.chain import Chain, LogEnd
from hsm_core._internal.audit.medium import DONE
from hsm_core._internal.audit.pruning import Pruner, RetentionRule
from hsm_core._internal.audit.record import GENESIS, event_of, leaf_hash
from hsm_core._internal.stores.approvals import RecordApprovalStore
from hsm_core._internal.stores.index import KeyIndex
from hsm_core._internal.stores.keys import RecordKeyStore
from hsm_core._internal.stores.memory.audit import MemoryAuditLog
from hsm_core._internal.stores.memory.records import MemoryRecords
from hsm_core._internal.stores.records import (
    ABORTED,
    APPROVALS,
    KEYS,
    META,
    USES,
    Commit,
    key_of,
    names_blob,
)
from hsm_core.model import AuditEvent, KeyId, Phase, PruneDetail
from hsm_core.protocols import (
    ApprovalChange,
    ApprovalEntry,
    AuditDraft,
    AuditDrafts,
    AuditHead,
    AuditTicket,
    Clock,
    Entropy,
)
from hsm_core.testing import FakeEntropy


class SimulatedCrash(BaseException):
    """The power went; nothing of the product may catch it."""


@dataclass(slots=True)
class Life:
    """
    One life of the HSM, from its opening to its crash or stop.

    Attributes:
        reach: Is told each point by name, and may end this life there.
    """

    reach: Callable[[str], None]
    is_over: bool = False

    def step(self, point: str) -> None:
        """Reach a point; nothing happens after the end."""
        self.check()
        self.reach(point)
        self.check()

    def check(self) -> None:
        """Let nothing pass after the end."""
        if self.is_over:
            raise SimulatedCrash


class _Note(NamedTuple):
    """What a reopened trail must know of a line without reading it."""

    phase: Phase
    operation_id: str
    set_digest: str


@dataclass(slots=True)
class Disk:
    """
    All media of one HSM.

    Attributes:
        records: Of keys, use counters and small values, by name.
        approvals: Of approvals, by name.
        lines: The trail, without newlines, from *first_seq* on.
        notes: One of each line that was ever written.
        synced: How many lines of all are durable; those after it a crash may take.
    """

    records: dict[str, bytes] = field(default_factory=dict)
    approvals: dict[str, bytes] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)
    notes: list[_Note] = field(default_factory=list)
    first_seq: int = 0
    baseline: Baseline | None = None
    kept: Sequence[bytes] = ()
    synced: int = 0
    log_id: str = ""

    @property
    def newest_time(self) -> int:
        """Time of the newest record, microseconds since 1970; 0 if there is none."""
        if not self.lines:
            return 0
        return event_of(self.lines[-1], len(self.notes) - 1).time

    def lose_power(self, rng: random.Random) -> int:
        """Lose some of the lines that were not synced; return how many."""
        unsynced = len(self.notes) - self.synced
        lost = rng.randint(0, unsynced)
        if lost:
            del self.lines[-lost:]
            del self.notes[-lost:]
        self.synced = len(self.notes)
        return lost

    @property
    def documents(self) -> dict[KeyId, bytes]:
        """The documents of all keys."""
        return {
            key_of(name): stored
            for name, stored in self.records.items()
            if name.endswith("/document")
        }

    def clean(self) -> None:
        """Remove blobs that no document names, as every real store does at start."""
        documents = self.documents
        for name in list(self.records):
            if "/v" in name and not names_blob(name, documents.get(key_of(name))):
                del self.records[name]


_PUTS = {
    ABORTED: ("store.before_abort", "store.after_abort"),
    META: ("store.before_meta", "store.after_meta"),
    USES: ("counters.before_put", "counters.after_put"),
}
_DELETES = {
    KEYS: "store.before_discard",
    USES: "counters.before_discard",
    APPROVALS: "approvals.before_remove",
}


class SimulatedRecords(MemoryRecords):
    """Records on a `Disk`."""

    def __init__(self, what: str, found: dict[str, bytes], life: Life) -> None:
        super().__init__(what, found)
        self._life = life

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let nothing be written after the end."""
        self._life.check()
        with super().writing():
            yield

    def commit(self, commit: Commit, /) -> None:
        """Make one change; the document is the one commit point."""
        with self.writing():
            commit.check()
            self._life.step("store.before_blobs")
            self.put_blobs(commit)
            self._life.step("store.after_blobs")
            self._life.step("store.before_document")
            self._found[commit.name] = commit.data
            commit.made()
            self._life.step("store.after_document")
            for name in commit.after:
                self._found.pop(name, None)
            self._life.step("store.after_remove")

    def put(
        self,
        name: str,
        data: bytes,
        /,
        *,
        is_first: bool = False,
        entry: ApprovalEntry | None = None,
        made: Callable[[], None] = lambda: None,
    ) -> None:
        """Create or replace one record."""
        before, after = _PUTS.get(_folder(name), ("", ""))
        if before:
            self._life.step(before)
        super().put(name, data, is_first=is_first, entry=entry, made=made)
        if after:
            self._life.step(after)

    def delete(
        self, names: Sequence[str], /, gone: Callable[[str], None] = lambda name: None
    ) -> None:
        """Delete records one after the other."""
        for name in names:
            self._life.step(_DELETES[_folder(name)])
            super().delete([name], gone)


def _folder(name: str) -> str:
    return name[: name.index("/") + 1]


class SimulatedKeyStore(RecordKeyStore):
    """Key store, with its use counters, on a `Disk`."""

    def __init__(self, disk: Disk, life: Life) -> None:
        disk.clean()
        super().__init__(SimulatedRecords("key store", disk.records, life), KeyIndex())
        self.rebuild()


class SimulatedApprovals(RecordApprovalStore):
    """Approvals on a `Disk`."""

    def __init__(self, disk: Disk, life: Life) -> None:
        super().__init__(SimulatedRecords("approval store", disk.approvals, life))
        self._life = life

    def commit(self, change: ApprovalChange, /) -> None:
        """Make one change."""
        self._life.step("approvals.before_record")
        super().commit(change)
        self._life.step("approvals.after_record")


class SimulatedTrail(MemoryAuditLog):
    """
    A trail on a `Disk`. What nobody has waited for, a crash may take.

    Args:
        strict: Whether also the record of a use is synced before its ticket is done.
    """

    def __init__(
        self,
        disk: Disk,
        life: Life,
        hmac_key: bytes,
        *,
        clock: Clock,
        entropy: Entropy,
        strict: bool,
    ) -> None:
        super().__init__(hmac_key, clock=clock, entropy=entropy)
        self._disk, self._life, self._strict = disk, life, strict
        disk.log_id = disk.log_id or self._chain.log_id
        stored = self._stored
        stored._lines, stored._first_seq = disk.lines, disk.first_seq  # noqa: SLF001
        stored._kept = disk.kept  # noqa: SLF001
        self._pruner = Pruner(
            stored, log_id=disk.log_id, hmac_key=hmac_key, baseline=disk.baseline
        )
        self._open_seqs, self._chain = _resume(disk, hmac_key)
        self._rule = RetentionRule(self._clock, self._chain.end.mark.seq, self._times)
        self._set_digest = self._chain.end.mark.set_digest

    @property
    def set_digest_at_open(self) -> str:
        """The newest set digest that the trail held when it was opened."""
        return self._set_digest

    def append(
        self,
        drafts: AuditDrafts,
        /,
        *,
        durable: bool = False,
        reserved: bool = False,
        lazy: bool = False,
    ) -> AuditTicket:
        """Append records; whoever waits for the ticket has them durable."""
        self._life.step("audit.before_write")
        drafts = drafts() if callable(drafts) else drafts
        if not drafts:
            return DONE
        super().append(drafts)
        if not self._disk.notes:
            # The first record names the trail.
            self._disk.notes.append(_Note(Phase.SINGLE, "", ""))
        self._disk.notes += [
            _Note(draft.phase, draft.operation_id, draft.set_digest) for draft in drafts
        ]
        end = len(self._disk.notes)
        self._life.step("audit.after_write")
        return _Ticket(self, end if durable or self._strict else 0)

    def sync(self, end: int) -> None:
        """Make all lines durable, if those before *end* are not yet."""
        if self._disk.synced < end:
            self._life.step("audit.before_sync")
            self._disk.synced = max(self._disk.synced, len(self._disk.notes))
            self._life.step("audit.after_sync")

    def durable_head(self) -> AuditHead:
        """Return the newest record that is durable."""
        seq = self._disk.synced - 1
        known = seq >= self._disk.first_seq
        line = self._disk.lines[seq - self._disk.first_seq] if known else b""
        return AuditHead(seq, leaf_hash(line)) if known else self.head()

    def prune(self, seq: int, policy: str, /) -> PruneDetail | None:
        """Remove records; what is kept of them is durable with their removal."""
        detail = super().prune(seq, policy)
        self._disk.first_seq = self._stored._first_seq  # noqa: SLF001
        self._disk.kept = self._stored._kept  # noqa: SLF001
        self._disk.baseline = self._pruner._baseline  # noqa: SLF001
        self._disk.synced = len(self._disk.notes)
        return detail

    def open_intents(self) -> list[AuditEvent]:
        """Return the intents without outcome that were found at start."""
        return [
            event_of(self._disk.lines[seq - self._disk.first_seq], seq)
            for seq in self._open_seqs
        ]

    def close(self) -> None:
        """Sync and refuse everything from now on."""
        self.sync(len(self._disk.notes))
        super().close()


class _Ticket:
    """Done when the trail is synced up to *end*."""

    def __init__(self, trail: SimulatedTrail, end: int) -> None:
        self._trail, self._end = trail, end

    def wait(self, timeout: float | None = None) -> None:
        """Sync."""
        self._trail.sync(self._end)

    def add_done_callback(
        self, callback: Callable[[BaseException | None], None], /
    ) -> None:
        """Sync, and call *callback* here."""
        self._trail.sync(self._end)
        callback(None)


def _draft_of(note: _Note) -> AuditDraft:
    return AuditDraft(
        phase=note.phase,
        kind="",
        operation_id=note.operation_id,
        set_digest=note.set_digest,
    )


def _resume(disk: Disk, hmac_key: bytes) -> tuple[list[int], Chain]:
    """Return the intents without outcome, and the chain where the lines end."""
    waiting, end = dict[str, int](), LogEnd()
    for seq, note in enumerate(disk.notes):
        end = end.after(_draft_of(note), seq, GENESIS)
        if note.phase is Phase.INTENT:
            waiting.setdefault(note.operation_id, seq)
        elif note.phase is Phase.OUTCOME:
            waiting.pop(note.operation_id, None)
    if disk.lines:
        end = end.after_use(end.mark.seq, leaf_hash(disk.lines[-1]))
    chain = Chain(
        log_id=disk.log_id,
        hmac_key=hmac_key,
        node="",
        random=FakeEntropy(len(disk.notes)).random_bytes,
        end=end,
    )
    return list(waiting.values()), chain
