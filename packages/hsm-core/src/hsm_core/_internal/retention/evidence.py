# SPDX-License-Identifier: MIT
"""
The retention ledger as evidence: compared with keys and trail at startup.

Keys and trail are compared with each other before. A purge that both lack and the
ledger attests shows that both were rolled back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

import msgspec

from hsm_core._internal.audit.cluster import Note, VerifiedLog
from hsm_core._internal.audit.reading import RecordSource, verified_events
from hsm_core._internal.audit.reasons import damaged_ledger
from hsm_core._internal.audit.record import event_of
from hsm_core._internal.audit.verify import OfflineVerification, verify_range
from hsm_core._internal.keyring.dependencies import Dependencies
from hsm_core._internal.keyring.rollback_check import RollbackCheck, condemn
from hsm_core._internal.keyring.versions import living
from hsm_core._internal.retention.ledger import (
    PURGE_KIND,
    Reach,
    anchor_draft,
    reach_of,
)
from hsm_core._internal.retention.state import LedgerAnchor, StateFile
from hsm_core.errors import (
    AuditTamperedError,
    KeyNotFoundError,
    KeyTamperedError,
    LedgerTamperedError,
    StoreUnavailableError,
)
from hsm_core.model import AuditEvent, KeyId, Phase
from hsm_core.protocols import KnownKey

_BLOCK: Final = 200
_PURGED: Final = "Its material was purged, and an older document was restored."


class TrailReach(msgspec.Struct):
    """
    Audit log's knowledge of the ledger, collected from records in order.

    Attributes:
        newest: The newest anchor; None if no record has one.
        began_at: Time of the oldest remaining record, if others were pruned; of several
            logs, the latest.
    """

    newest: LedgerAnchor | None = None
    began_at: int = 0
    _is_begun: bool = msgspec.field(default=False)

    def next_log(self) -> None:
        """Go on with the records of another log of the cluster."""
        self._is_begun = False

    def note(self, event: AuditEvent) -> None:
        """Update the state with one audit record."""
        if not self._is_begun:
            self._is_begun = True
            self.began_at = max(self.began_at, event.time if event.seq else 0)
        found, newest = reach_of(event), self.newest
        if found is None:
            return
        is_other = newest is None or newest.log_id != found.anchor.log_id
        if is_other or newest is None or newest.seq < found.anchor.seq:
            self.newest = found.anchor


def unknown_purge(
    purges: Mapping[str, tuple[AuditEvent, AuditEvent]], trail: TrailReach
) -> AuditEvent | None:
    """
    Return the intent of the first purge that the audit log should have, and lacks.

    Before each purge the audit log gets an anchor of its intent. So every purge lies at
    or before the newest anchor, unless that was pruned.

    Args:
        purges: Intent and outcome of each purge that was made, by its id, in order.

        trail: The audit log's knowledge of this ledger.
    """
    reached = trail.newest.seq if trail.newest else -1
    for intent, outcome in purges.values():
        is_pruned = trail.newest is None and outcome.time < trail.began_at
        if intent.seq > reached and not is_pruned:
            return intent
    return None


def _material_of(event: AuditEvent) -> str:
    return str(event.parameters.get("material_id", ""))


class _Reading(msgspec.Struct):
    """Ledger records read so far."""

    leaves: dict[int, str] = msgspec.field(default_factory=dict)
    begun: dict[str, AuditEvent] = msgspec.field(default_factory=dict)
    ended: dict[str, AuditEvent] = msgspec.field(default_factory=dict)

    def look(self, event: AuditEvent) -> None:
        if event.seq == 0:
            self.leaves, self.begun, self.ended = {}, {}, {}
        self.leaves[event.seq - 1] = event.prev
        if event.kind != PURGE_KIND:
            return
        if event.phase is Phase.INTENT:
            self.begun.setdefault(event.operation_id, event)
            return
        begun = self.begun.get(event.operation_id)
        ended = self.ended.get(event.operation_id, event)
        if begun is None or ended.seq != event.seq:
            raise LedgerTamperedError(
                f"Record {event.seq} of the retention ledger ends a purge that "
                "was not started.",
                seq=event.seq,
            )
        self.ended[event.operation_id] = event

    @property
    def done(self) -> dict[str, tuple[AuditEvent, AuditEvent]]:
        """Intent and outcome of each purge that was done, by its id, in order."""
        ended = self.ended.items()
        return {i: (self.begun[i], event) for i, event in ended if event.code == "ok"}

    def check(self) -> None:
        """
        Check that no material was purged twice.

        Raises:
            LedgerTamperedError: One was.
        """
        done = self.done.values()
        if len({(e.key_id, _material_of(e)) for _, e in done}) != len(done):
            raise LedgerTamperedError(
                "The retention ledger records the purge of the same key material twice."
            )


class LedgerCheck:
    """
    Compares the ledger with the keys and with the audit log.

    Args:
        ground: Its keys were compared with the audit log.

        log: The ledger, to be read; None if there is none, or it is damaged.

        hmac_key: Key of ledger and trail.
    """

    def __init__(
        self, ground: Dependencies, log: RecordSource | None, hmac_key: bytes
    ) -> None:
        self._ground = ground
        self._log = log
        self._verify = partial(verify_range, log, hmac_key) if log else None
        self._is_ahead = False

    def compare(self, found: RollbackCheck) -> RollbackCheck:
        """
        Find purges that keys and audit log lack.

        If the keys have the newest purge, nothing more is read: the set digest vouches
        for the others. Otherwise the audit log is walked.

        Args:
            found: Result of the rollback check of keys and audit log.

        Returns:
            The same, with a lock if the ledger knows more than the audit log.

        Raises:
            AuditTamperedError: A record of the audit log is bad.
            UnavailableError: Ledger, store or audit log can't be read.
        """
        if self._log is None or (not found.lock and self._knows_newest()):
            return found
        # First: another node may purge meanwhile, and anchors each purge before.
        done = self._read().done
        trail, audit = TrailReach(), self._ground.audit
        for event in verified_events(audit, self._ground.verify, audit.first_seq):
            trail.note(event)
        for log in self._ground.other_logs():
            trail.next_log()
            for event in verified_events(log, log.verify, log.first_seq):
                trail.note(event)
        if trail.newest is not None and trail.newest.log_id != self._log.log_id:
            return found  # It is not the ledger that the trail knows.
        unknown = unknown_purge(done, trail)
        if unknown is None:
            return found
        self._is_ahead = True
        problems = dict(found.problems)
        problems |= dict.fromkeys(self._condemn_living(), "older")
        if found.lock:
            return RollbackCheck(problems, found.lock, found.facts)
        lock = (
            "The audit log is older than the retention ledger: it lacks ledger "
            f"record {unknown.seq}, a purge of version {unknown.version} of key "
            f"{unknown.key_id}."
        )
        facts = {"reason": "trail_older", "key_id": unknown.key_id}
        return RollbackCheck(problems, lock, facts)

    def _knows_newest(self) -> bool:
        """Return whether the keys have the newest purge of an existing key."""
        inventory = self._ground.inventory
        anchor = StateFile(inventory.store, inventory.ring).state.anchor
        for event in self._newest_first():
            if event.kind != PURGE_KIND or event.phase is Phase.INTENT:
                continue
            if event.code != "ok":
                continue
            try:
                document = inventory.document(KeyId(event.key_id))
            except (KeyNotFoundError, KeyTamperedError, StoreUnavailableError):
                # Nothing of it can come back; whether it may be gone is remembered.
                if anchor is None or anchor.seq < event.seq:
                    return False
                continue
            stones = {stone.material_id for stone in document.tombstones}
            return _material_of(event) in stones
        return True

    def _newest_first(self) -> Iterator[AuditEvent]:
        """Return the records of the ledger; a damaged one has none before that."""
        log, verify = self._log, self._verify
        if log is None or verify is None:
            return
        end = log.head().seq + 1
        with suppress(AuditTamperedError):
            while end > 0:
                start = max(0, end - _BLOCK)
                verify(start, end - start)
                lines = log.lines(start, end - start)
                for seq in range(end - 1, start - 1, -1):
                    yield event_of(lines[seq - start], seq)
                end = start

    def _read(self) -> _Reading:
        """Read the ledger; of a damaged one, the records before the first bad one."""
        reading = _Reading()
        if self._log is not None and self._verify is not None:
            with suppress(AuditTamperedError, LedgerTamperedError):
                for event in verified_events(self._log, self._verify, 0):
                    reading.look(event)
        return reading

    def _condemn_living(self) -> Iterator[KeyId]:
        """Disable the keys that have purged material, and return them."""
        inventory = self._ground.inventory
        for key_id, gone in self.purged(()).items():
            with suppress(KeyNotFoundError, KeyTamperedError, StoreUnavailableError):
                document = inventory.document(key_id)
                if living(document) & gone:
                    digest = inventory.digest_of(key_id)
                    known = KnownKey(key_id, document.generation, digest)
                    condemn(inventory, key_id, "older", known, _PURGED)
                    yield key_id

    def anchor(self) -> None:
        """
        Record an accepted ledger that was ahead in the audit log.

        Raises:
            AuditUnavailableError: It can't be recorded.
        """
        if self._is_ahead and self._log is not None:
            head = self._log.head()
            end = LedgerAnchor(
                log_id=self._log.log_id, seq=head.seq, leaf_hash=head.leaf_hash
            )
            draft = anchor_draft(end)
            self._ground.audit.append([draft], durable=True, reserved=True).wait()
            self._is_ahead = False

    def purged(self, done: Collection[tuple[KeyId, int]]) -> Mapping[KeyId, set[str]]:
        """
        Return the material of each key that was purged.

        A damaged ledger counts up to its first bad record.

        Args:
            done: Purges that the audit log knows: the key, and the newest version of
                the material. They supply the outcomes that the ledger lacks.

        Raises:
            AuditUnavailableError: It can't be read now.
        """
        found, reading = defaultdict[KeyId, set[str]](set), self._read()
        for begun in reading.begun.values():
            key_id = KeyId(begun.key_id)
            ended = reading.ended.get(begun.operation_id)
            known = (key_id, begun.version) in done
            if (ended.code == "ok") if ended else known:
                found[key_id].add(_material_of(begun))
        return found


class _Verifier(Protocol):
    def verify(
        self,
        progress: Callable[[int], None] | None = None,
        look: Callable[[AuditEvent], None] | None = None,
    ) -> OfflineVerification: ...


class LedgerVerification(msgspec.Struct, frozen=True, kw_only=True):
    """
    Result of verifying an intact ledger; damage raises instead.

    Attributes:
        chain: Result of verifying its records.
        purges: Purges that were done.
        aborted: Purges that were begun and not done.
        unfinished: Purges whose outcome is not there yet.
        anchors: Places of it that the audit log names; None if no trail was given.
        former: Number of lost ledgers that were replaced, by the audit log; they
            attested the earlier purges.
    """

    chain: OfflineVerification
    purges: int
    aborted: int
    unfinished: int
    anchors: int | None = None
    former: int = 0


class _Trail(msgspec.Struct):
    """Audit log's knowledge of the ledger."""

    reaches: list[Reach] = msgspec.field(default_factory=list)
    former: set[int] = msgspec.field(default_factory=set)
    purged: set[tuple[str, int]] = msgspec.field(default_factory=set)
    reach: TrailReach = msgspec.field(default_factory=TrailReach)

    def look(self, event: AuditEvent) -> None:
        self.reach.note(event)
        reach = reach_of(event)
        if reach is not None:
            if reach.former:
                # What was before is attested by ledgers that are lost.
                self.reaches.clear()
                self.purged.clear()
                self.former.add(event.seq)
            self.reaches.append(reach)
        is_outcome = event.phase is Phase.OUTCOME
        if event.kind == "PurgeVersion" and is_outcome and event.document_after:
            self.purged.add((event.key_id, event.version))


def verify_ledger(
    ledger: _Verifier,
    trail: _Verifier | _Noted | None = None,
    progress: Callable[[int], None] | None = None,
) -> LedgerVerification:
    """
    Verify a ledger, and compare it with the audit log if that is given.

    Args:
        ledger: Verifier of its files.

        trail: Verifier of the audit log.

        progress: Called now and then with the number of records verified.

    Raises:
        LedgerTamperedError: A record of the ledger is bad, it is not what the audit log
            says of it, or the audit log does not know a purge of it.
        AuditTamperedError: The audit log is damaged.
        WrongAuditKeyError: The key is not theirs.
        ConfigurationError: One of them is not there, or can't be read.
    """
    reading = _Reading()
    try:
        chain = ledger.verify(progress, reading.look)
    except AuditTamperedError as error:
        facts = {"seq": error.facts.get("seq", 0)}
        raise LedgerTamperedError(damaged_ledger(error), **facts) from error
    reading.leaves[chain.head_seq] = chain.head_hash
    reading.check()
    done = reading.done
    anchors, told = None, _Trail()
    if trail is not None:
        trail.verify(progress, told.look)
        _compare(chain, reading, told)
        anchors = len(told.reaches)
    return LedgerVerification(
        chain=chain,
        purges=len(done),
        aborted=len(reading.ended) - len(done),
        unfinished=len(reading.begun) - len(reading.ended),
        anchors=anchors,
        former=len(told.former),
    )


class ClusterVerification(msgspec.Struct, frozen=True):
    """
    Result of verifying the logs of a cluster.

    Attributes:
        logs: Result of each audit log.
        ledger: Of the retention ledger; None if there is none, and no log names one.
    """

    logs: list[VerifiedLog]
    ledger: LedgerVerification | None


class ClusterLogReader(Protocol):
    """Audit logs and retention ledger of a cluster, in one state."""

    def verify(
        self,
        progress: Callable[[int], None] | None = None,
        look: Callable[[AuditEvent], None] | None = None,
        note: Note = ...,
    ) -> list[VerifiedLog]:
        """Verify all audit logs; see `verify_logs`."""
        ...

    @property
    def ledger(self) -> _Verifier | None:
        """The retention ledger; None if there is none."""
        ...


def verify_cluster(
    cluster: ClusterLogReader,
    progress: Callable[[int], None] | None = None,
    look: Callable[[AuditEvent], None] | None = None,
) -> ClusterVerification:
    """
    Verify the audit logs of a cluster together, and its retention ledger with them.

    Args:
        cluster: The logs.

        progress: Called now and then with the number of records verified.

        look: Called with each good audit record.

    Raises:
        LedgerTamperedError: The ledger is damaged or missing, or not what the audit
            logs say of it.
        AuditTamperedError: An audit log is damaged, or they contradict each other.
        HSMError: See `verify_ledger`.
    """
    noted: list[AuditEvent] = []
    firsts: list[AuditEvent] = []

    def note(event: AuditEvent, *, is_first: bool) -> None:
        noted.append(event)
        if is_first and event.seq:
            firsts.append(event)

    logs = cluster.verify(progress, look, note)
    # In one order, for a lost ledger was replaced at one moment.
    noted.sort(key=lambda event: event.time)
    # The log that was pruned up to the latest moment tells since when they all tell.
    noted[:0] = sorted(firsts, key=lambda event: event.time)[-1:]
    try:
        ledger = cluster.ledger
    except AuditTamperedError as error:
        raise LedgerTamperedError(damaged_ledger(error)) from error
    if ledger is None:
        if any(map(reach_of, noted)):
            raise LedgerTamperedError(
                "The retention ledger that the audit logs name is missing."
            )
        return ClusterVerification(logs, None)
    return ClusterVerification(logs, verify_ledger(ledger, _Noted(noted)))


class _Noted(msgspec.Struct):
    """Records of verified audit logs, to be looked at like a log."""

    events: list[AuditEvent]

    def verify(
        self,
        progress: Callable[[int], None] | None = None,
        look: Callable[[AuditEvent], None] | None = None,
    ) -> None:
        for event in self.events:
            if look is not None:
                look(event)


def _compare(
    chain: OfflineVerification,
    reading: _Reading,
    told: _Trail,
) -> None:
    for anchor in (known.anchor for known in told.reaches):
        if anchor.log_id != chain.log_id:
            raise LedgerTamperedError(
                "This is not the retention ledger that the audit log names.", seq=0
            )
        found = reading.leaves.get(anchor.seq)
        if found != anchor.leaf_hash:
            what = (
                "missing" if found is None else "not the one that the audit log names"
            )
            raise LedgerTamperedError(
                f"Record {anchor.seq} of the retention ledger is {what}.",
                seq=anchor.seq,
            )
    unknown = unknown_purge(reading.done, told.reach)
    if unknown is not None:
        raise LedgerTamperedError(
            "The audit log is older than the retention ledger: it lacks ledger "
            f"record {unknown.seq}, a purge of version {unknown.version} of key "
            f"{unknown.key_id}.",
            seq=unknown.seq,
            key_id=unknown.key_id,
            version=unknown.version,
        )
    attested = {(e.key_id, e.version) for e in reading.begun.values()}
    for key_id, version in sorted(told.purged - attested):
        raise LedgerTamperedError(
            f"The audit log says that version {version} of key {key_id} was "
            "purged, but the retention ledger does not.",
            key_id=key_id,
            version=version,
        )
