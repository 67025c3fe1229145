# SPDX-License-Identifier: MIT
"""Offline verification of a retention ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from hsm_core._internal.audit.offline import OfflineVerification
from hsm_core._internal.audit.reasons import damaged_ledger
from hsm_core._internal.retention.evidence import TrailReach, unknown_purge
from hsm_core._internal.retention.ledger import PURGE_KIND, Reach, reach_of
from hsm_core.errors import AuditTamperedError, LedgerTamperedError
from hsm_core.model import AuditEvent, Phase


class _Verifier(Protocol):
    def verify(
        self,
        progress: Callable[[int], None] | None = None,
        look: Callable[[AuditEvent], None] | None = None,
    ) -> OfflineVerification: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerVerification:
    """
    Result of verifying an intact ledger; damage raises instead.

    Attributes:
        chain: Result of verifying its records.
        purges: Purges that were done.
        aborted: Purges that were begun and not done.
        unfinished: Purges whose outcome is not there yet.
        anchors: Places of it that the trail names; None if no trail was given.
        former: Number of lost ledgers that were replaced, by the audit log; they
            attested the earlier purges.
    """

    chain: OfflineVerification
    purges: int
    aborted: int
    unfinished: int
    anchors: int | None = None
    former: int = 0


@dataclass(slots=True)
class _Reading:
    """Ledger records read so far."""

    leaves: dict[int, str] = field(default_factory=dict)
    begun: dict[str, AuditEvent] = field(default_factory=dict)
    ended: dict[str, AuditEvent] = field(default_factory=dict)

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

    def done(self) -> list[AuditEvent]:
        """Return the outcomes of purges that were done; each material has one."""
        found = [event for event in self.ended.values() if event.code == "ok"]
        materials = {(e.key_id, str(e.parameters.get("material_id"))) for e in found}
        if len(materials) != len(found):
            raise LedgerTamperedError(
                "The retention ledger records the purge of the same key material twice."
            )
        return found


@dataclass(slots=True)
class _Trail:
    """Audit log's knowledge of the ledger."""

    reaches: list[Reach] = field(default_factory=list)
    former: set[int] = field(default_factory=set)
    purged: set[tuple[str, int]] = field(default_factory=set)
    reach: TrailReach = field(default_factory=TrailReach)

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
    trail: _Verifier | None = None,
    progress: Callable[[int], None] | None = None,
) -> LedgerVerification:
    """
    Verify a ledger, and compare it with the trail if that is given.

    Args:
        ledger: Verifier of its files.

        trail: Verifier of the trail.

        progress: Called now and then with the number of records verified.

    Raises:
        LedgerTamperedError: A record of the ledger is bad, it is not what the trail
            says of it, or the trail does not know a purge of it.
        AuditTamperedError: The trail is damaged.
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
    done = reading.done()
    anchors, told = None, _Trail()
    if trail is not None:
        trail.verify(progress, told.look)
        _compare(chain, reading, done, told)
        anchors = len(told.reaches)
    return LedgerVerification(
        chain=chain,
        purges=len(done),
        aborted=len(reading.ended) - len(done),
        unfinished=len(reading.begun) - len(reading.ended),
        anchors=anchors,
        former=len(told.former),
    )


def _compare(
    chain: OfflineVerification,
    reading: _Reading,
    done: Iterable[AuditEvent],
    told: _Trail,
) -> None:
    for anchor in (reach.anchor for reach in told.reaches):
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
    made = {e.operation_id: (reading.begun[e.operation_id], e) for e in done}
    unknown = unknown_purge(made, told.reach)
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
