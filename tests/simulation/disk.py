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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hsm_core._internal.approvals.records import read_entry
from hsm_core._internal.audit.baseline import Baseline
from hsm_core._internal.audit.chain import Chain, OpenIntents
from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.audit.pruning import RetentionRule
from hsm_core._internal.audit.record import GENESIS, event_of, leaf_hash
from hsm_core._internal.keyring.documents import peek, read_index
from hsm_core._internal.stores.approval_index import check_approval_change
from hsm_core._internal.stores.memory.approvals import MemoryApprovalStore
from hsm_core._internal.stores.memory.audit import MemoryAuditLog
from hsm_core._internal.stores.memory.keys import MemoryKeyStore
from hsm_core._internal.stores.memory.uses import MemoryUseCounters
from hsm_core._internal.stores.naming import check_change, check_operation_id
from hsm_core.errors import ConflictError
from hsm_core.model import AuditEvent, KeyId, Phase, PruneDetail
from hsm_core.protocols import (
    ApprovalChange,
    AuditDraft,
    AuditHead,
    AuditTicket,
    Clock,
    Entropy,
    KeyChange,
)


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
        lines: The trail, without newlines, from *first_seq* on.
        notes: One of each line that was ever written.
        synced: How many lines of all are durable; those after it a crash may take.
    """

    documents: dict[KeyId, bytes] = field(default_factory=dict)
    blobs: dict[tuple[KeyId, int], bytes] = field(default_factory=dict)
    meta: dict[str, bytes] = field(default_factory=dict)
    aborted: list[str] = field(default_factory=list)
    counters: dict[str, bytes] = field(default_factory=dict)
    approvals: dict[str, bytes] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)
    notes: list[_Note] = field(default_factory=list)
    first_seq: int = 0
    baseline: Baseline | None = None
    kept: list[bytes] = field(default_factory=list)
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

    def clean(self) -> None:
        """Remove blobs that no document names, as every real store does at start."""
        for key_id, version in list(self.blobs):
            document = peek(key_id, self.documents.get(key_id, b""))
            if document is None or document.version(version) is None:
                del self.blobs[key_id, version]


class SimulatedKeyStore(MemoryKeyStore):
    """Documents and blobs on a `Disk`."""

    def __init__(self, disk: Disk, life: Life) -> None:
        super().__init__()
        self._disk, self._life = disk, life
        disk.clean()
        self._documents, self._blobs = disk.documents, disk.blobs
        self._meta = disk.meta
        self.rebuild()
        for operation_id in disk.aborted:
            self._index.abort(operation_id)

    def rebuild(self) -> None:
        """See `KeyStore.rebuild`."""
        found = [read_index(*item) for item in self._documents.items()]
        self._index.replace(sorted(found, key=lambda entry: entry.created_at))

    def commit(self, change: KeyChange, /) -> None:
        """Make one change; the document is the one commit point."""
        check_change(change)
        key_id = change.entry.key_id
        self._check_open()
        self._index.check(change)
        if any((key_id, version) in self._blobs for version in change.blobs):
            raise ConflictError("A sealed blob can't be replaced.")
        self._life.step("store.before_blobs")
        for version, blob in change.blobs.items():
            self._blobs[key_id, version] = blob
        self._life.step("store.after_blobs")
        self._life.step("store.before_document")
        self._documents[key_id] = change.document
        self._index.put(change.entry)
        self._life.step("store.after_document")
        for version in change.removed_blobs:
            self._blobs.pop((key_id, version), None)
        self._life.step("store.after_remove")

    def abort(self, operation_id: str, /) -> None:
        """Mark an operation id as aborted, for ever."""
        check_operation_id(operation_id)
        self._life.step("store.before_abort")
        super().abort(operation_id)
        self._disk.aborted.append(operation_id)
        self._life.step("store.after_abort")

    def discard_blobs(self, key_id: KeyId, versions: Sequence[int], /) -> None:
        """Delete blobs of destroyed versions."""
        self._life.step("store.before_discard")
        super().discard_blobs(key_id, versions)

    def write_meta(self, name: str, value: bytes, /) -> None:
        """Replace a small named value."""
        self._life.step("store.before_meta")
        super().write_meta(name, value)
        self._life.step("store.after_meta")


class SimulatedCounters(MemoryUseCounters):
    """Use counters on a `Disk`."""

    def __init__(self, disk: Disk, life: Life) -> None:
        super().__init__()
        self._life = life
        self._values = disk.counters

    def put(self, material_id: str, value: bytes, /) -> None:
        """Replace the value of a material."""
        self._life.step("counters.before_put")
        super().put(material_id, value)
        self._life.step("counters.after_put")

    def discard(self, material_id: str, /) -> None:
        """Delete the value of a material."""
        self._life.step("counters.before_discard")
        super().discard(material_id)


class SimulatedApprovals(MemoryApprovalStore):
    """Approvals on a `Disk`."""

    def __init__(self, disk: Disk, life: Life) -> None:
        super().__init__()
        self._life = life
        self._records = disk.approvals
        self._index.replace(read_entry(*item) for item in disk.approvals.items())

    def commit(self, change: ApprovalChange, /) -> None:
        """Make one change."""
        check_approval_change(change)
        self._life.step("approvals.before_record")
        super().commit(change)
        self._life.step("approvals.after_record")

    def remove(self, approval_ids: Sequence[str], /) -> None:
        """Delete approvals one after the other."""
        for approval_id in approval_ids:
            self._life.step("approvals.before_remove")
            super().remove([approval_id])


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
        self._lines = disk.lines
        self._first_seq, self._baseline = disk.first_seq, disk.baseline
        self._kept = disk.kept
        self._open_seqs, self._chain = _resume(disk, hmac_key)
        self._rule = RetentionRule(self._clock, self._chain.seq, self._times)
        self._set_digest = self._chain.mark().set_digest

    @property
    def set_digest_at_open(self) -> str:
        """The newest set digest that the trail held when it was opened."""
        return self._set_digest

    def append(
        self,
        drafts: Sequence[AuditDraft],
        /,
        *,
        durable: bool = False,
        reserved: bool = False,
        lazy: bool = False,
    ) -> AuditTicket:
        """Append records; whoever waits for the ticket has them durable."""
        self._life.step("audit.before_write")
        super().append(drafts, durable=durable, reserved=reserved, lazy=lazy)
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
        known = seq >= self._first_seq
        line = self._lines[seq - self._first_seq] if known else b""
        return AuditHead(seq, leaf_hash(line)) if known else self.head()

    def prune(self, seq: int, policy: str, /) -> PruneDetail | None:
        """Remove records; what is kept of them is durable with their removal."""
        detail = super().prune(seq, policy)
        self._disk.first_seq, self._disk.baseline = self._first_seq, self._baseline
        self._disk.kept = self._kept
        self._disk.synced = len(self._disk.notes)
        return detail

    def open_intents(self) -> list[AuditEvent]:
        """Return the intents without outcome that were found at start."""
        return [
            event_of(self._lines[seq - self._first_seq], seq) for seq in self._open_seqs
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


def _resume(disk: Disk, hmac_key: bytes) -> tuple[list[int], Chain]:
    """Return the intents without outcome, and the chain where the lines end."""
    intents, waiting, set_digest = OpenIntents(), dict[str, int](), ""
    for seq, note in enumerate(disk.notes):
        intents.note(note.phase, note.operation_id, seq)
        set_digest = note.set_digest or set_digest
        if note.phase is Phase.INTENT:
            waiting.setdefault(note.operation_id, seq)
        elif note.phase is Phase.OUTCOME:
            waiting.pop(note.operation_id, None)
    newest = len(disk.notes) - 1
    mark = HeadMark(
        seq=newest,
        leaf_hash=leaf_hash(disk.lines[-1]) if disk.lines else GENESIS,
        floor=intents.floor(newest),
        set_digest=set_digest,
    )
    chain = Chain(
        log_id=disk.log_id, hmac_key=hmac_key, node="", mark=mark, intents=intents
    )
    return list(waiting.values()), chain
