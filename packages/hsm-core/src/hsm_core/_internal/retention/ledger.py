# SPDX-License-Identifier: MIT
"""
Retention ledger: an attestation of each purge, chained like the audit log.

Each purge has an intent, written before anything is destroyed, and one outcome; see
`Purger`. After each of them the audit log records the end of the ledger (an anchor), so
that a truncated, edited or older ledger is detected. A lost ledger is never replaced
silently: an operator must request it, and both logs record that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import msgspec
from msgspec.structs import replace

from hsm_core._internal.audit.reasons import damaged_ledger
from hsm_core._internal.audit.record import event_of, leaf_hash
from hsm_core._internal.audit.verify import verify_range
from hsm_core._internal.keyring.documents import audited_caller
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.retention.state import LedgerAnchor
from hsm_core.errors import (
    AuditTamperedError,
    ConflictError,
    HSMError,
    InvalidInputError,
    LedgerTamperedError,
)
from hsm_core.model import (
    AuditedCaller,
    AuditEvent,
    Caller,
    MessageDetail,
    Parameters,
    Phase,
)
from hsm_core.operations import AuditVerification, LedgerBegun
from hsm_core.protocols import AuditDraft, AuditLog

ANCHOR_KIND: Final = "system.ledger"
"""Record kind of anchors of the ledger in the audit log."""

BEGUN_KIND: Final = "system.ledger-begun"
"""Record kind that names the lost ledger that this one replaces."""

PURGE_KIND: Final = "purge"
"""Record kind of purges in the ledger."""

_BLOCK: Final = 200


class Reach(msgspec.Struct, frozen=True):
    """
    Anchor of the ledger in an audit record.

    Attributes:
        former: Log id of the ledger that was lost, where another one begins here; what
            the audit log says before is about lost ledgers.
    """

    anchor: LedgerAnchor
    former: str = ""


class RetentionLedger:
    """
    Retention ledger of an HSM, tied to its audit log. Thread-safe.

    Args:
        log: Log of the records; closed with the ledger.

        trail: Audit log for the anchors.

        hmac_key: Key of both.

        remember: Stores the newest anchor.

        anchor: Newest stored anchor.

    Attributes:
        purging: Lock held during a purge, so that only one runs.
        problem: Reason why nothing may be purged, or empty.
    """

    def __init__(
        self,
        log: AuditLog,
        trail: AuditLog,
        hmac_key: bytes,
        remember: Callable[[LedgerAnchor], None],
        anchor: LedgerAnchor | None = None,
    ) -> None:
        self._log = log
        self._trail = trail
        self._hmac_key = hmac_key
        self._remember = remember
        self._lost: LedgerAnchor | None = None
        self.purging = threading.Lock()
        self.problem = ""
        if anchor is not None:
            with suppress(LedgerTamperedError):  # It is noted as the problem.
                self.check(anchor)

    @property
    def log(self) -> AuditLog:
        """What it is written to."""
        return self._log

    def anchor(self, about: AuditDraft) -> None:
        """
        Record the end of the ledger in the audit log.

        Raises:
            AuditUnavailableError: It can't be recorded.
        """
        anchor = reach(self._log)
        draft = anchor_draft(anchor, about.key_id, about.version)
        # First what is nearer: the audit log must never know more of it than the state.
        self._remember(anchor)
        self._trail.append([draft], durable=True, reserved=True).wait()

    def begin_anew(self, caller: Caller, reason: str) -> LedgerBegun:
        """
        Replace a lost ledger by this new one.

        Callers hold `purging`. A try that fails changes nothing but that the log says
        so, and can be repeated.

        Raises:
            ConflictError: See `check_lost`.
            AuditUnavailableError: Ledger or audit log can't be written.
            StoreUnavailableError: It can't be remembered.
        """
        lost = self.check_lost()
        anchor = self._record_loss(lost, audited_caller(caller), reason)
        # Last, so that the loss is known at every start until all else is done.
        self._remember(anchor)
        self._lost, self.problem = None, ""
        return LedgerBegun(
            log_id=anchor.log_id,
            former_log_id=lost.log_id,
            former_head_seq=lost.seq,
            former_head_hash=lost.leaf_hash,
        )

    def check_lost(self) -> LedgerAnchor:
        """
        Return the known end of a lost ledger that this one replaces.

        Raises:
            ConflictError: Nothing is known to be wrong, or the log is not new.
            AuditUnavailableError: It can't be read now.
        """
        lost = self._lost
        if lost is None or not self.problem:
            fine = "The retention ledger has no known problem, so it can't be replaced."
            raise ConflictError(self.problem or fine)
        if not self._is_new():
            raise ConflictError(
                "The retention ledger already holds purges. Move its files away "
                "and restart to create a new one."
            )
        return lost

    def _record_loss(
        self, lost: LedgerAnchor, caller: AuditedCaller, reason: str
    ) -> LedgerAnchor:
        """Record the loss in both logs; return the start of the new ledger."""
        former: Parameters = {f"former_{n}": v for n, v in _told(lost).items()}
        begun = AuditDraft(
            phase=Phase.SINGLE,
            kind=BEGUN_KIND,
            caller=caller,
            parameters=former,
            detail=MessageDetail(text=reason),
        )
        self._log.append([begun], durable=True).wait()
        failpoint("ledger.after_begun")
        anchor = reach(self._log)
        named = replace(begun, kind=ANCHOR_KIND, parameters={**_told(anchor), **former})
        self._trail.append([named], durable=True, reserved=True).wait()
        failpoint("ledger.after_named")
        return anchor

    def _is_new(self) -> bool:
        seq, head = 0, self._log.head()
        while seq <= head.seq:
            for line in self._log.lines(seq, _BLOCK):
                if event_of(line, seq).kind == PURGE_KIND:
                    return False
                seq += 1
        return True

    def is_another(self, anchor: LedgerAnchor) -> bool:
        """Return whether an anchor is of another ledger than this one."""
        return anchor.log_id != self._log.log_id

    def check_usable(self) -> None:
        """
        Check that the ledger has no known problem.

        Raises:
            LedgerTamperedError: It has one.
        """
        if self.problem:
            raise LedgerTamperedError(self.problem)

    def check(self, anchor: LedgerAnchor) -> None:
        """
        Compare the ledger with its anchors in the audit log.

        Raises:
            LedgerTamperedError: It is another one, ends before, or was changed.
            AuditUnavailableError: It can't be read now.
        """
        if self.is_another(anchor):
            self._lost = anchor
            raise self._condemn(
                "The retention ledger is not the one that the audit log names."
            )
        if anchor.seq < 0:
            return
        if anchor.seq > self._log.head().seq:
            raise self._condemn(
                f"The retention ledger ends before record {anchor.seq}, which the "
                "audit log names."
            )
        try:
            lines = self._log.lines(anchor.seq, 1)
        except AuditTamperedError:
            lines = []
        if not lines or leaf_hash(lines[0]) != anchor.leaf_hash:
            raise self._condemn(
                f"Record {anchor.seq} of the retention ledger is not the one that "
                "the audit log names."
            )

    def verify(self) -> Iterator[None]:
        """
        Verify every record of the ledger, a block at each step.

        Raises:
            LedgerTamperedError: A record is bad.
            AuditUnavailableError: It can't be read now.
        """
        seq, head = 0, self._log.head()
        while seq <= head.seq:
            try:
                verify_range(self._log, self._hmac_key, seq, _BLOCK)
            except AuditTamperedError as error:
                raise self._condemn(damaged_ledger(error)) from error
            seq += _BLOCK
            yield

    def _condemn(self, problem: str) -> LedgerTamperedError:
        self.problem = self.problem or problem
        return LedgerTamperedError(problem)

    def close(self) -> None:
        """
        Close it.

        Raises:
            AuditUnavailableError: Its end could not be written.
        """
        self._log.close()


def reach(log: AuditLog) -> LedgerAnchor:
    """Return the durable end of a ledger."""
    head = log.durable_head()
    return LedgerAnchor(log_id=log.log_id, seq=head.seq, leaf_hash=head.leaf_hash)


def anchor_draft(
    anchor: LedgerAnchor, key_id: str = "", version: int = 0
) -> AuditDraft:
    """Return the audit record of an anchor."""
    return AuditDraft(
        phase=Phase.SINGLE,
        kind=ANCHOR_KIND,
        key_id=key_id,
        version=version,
        parameters=_told(anchor),
    )


def _told(anchor: LedgerAnchor) -> Parameters:
    return {
        "log_id": anchor.log_id,
        "seq": anchor.seq,
        "leaf_hash": anchor.leaf_hash,
    }


def reach_of(event: AuditEvent) -> Reach | None:
    """Return the anchor in an audit record, if any."""
    if event.kind != ANCHOR_KIND:
        return None
    found = event.parameters
    log_id, seq = found.get("log_id"), found.get("seq")
    digest = found.get("leaf_hash")
    if isinstance(log_id, str) and isinstance(seq, int) and isinstance(digest, str):
        anchor = LedgerAnchor(log_id=log_id, seq=seq, leaf_hash=digest)
        return Reach(anchor, str(found.get("former_log_id", "")))
    raise HSMError("An audit record of the retention ledger's end can't be read.")


class TrailCheck:
    """
    Verifies the audit log incrementally, and the complete ledger once.

    Args:
        audit: The audit log.

        verify: Verifies a range of it, given the first record and how many.

        ledger: Compared with what the audit log says of it.

    Attributes:
        known: The newest place of the ledger that the audit log names, if it names any.
    """

    def __init__(
        self,
        audit: AuditLog,
        verify: Callable[[int, int], AuditVerification],
        ledger: RetentionLedger,
    ) -> None:
        self._audit = audit
        self._verify = verify
        self._ledger = ledger
        self._next = 0
        self._is_ledger_verified = False
        self._lost: LedgerAnchor | None = None
        self._is_compared = False
        self.known: LedgerAnchor | None = None

    def compare_once(self) -> Iterator[None]:
        """
        Verify once after the start, even if nothing is purged; see `verify`.

        The first purge still verifies everything.
        """
        if not self._is_compared:
            yield from self.verify()
            self._next, self._is_ledger_verified = 0, False

    def verify(self) -> Iterator[None]:
        """
        Verify up to the present end, a block at each step.

        Raises:
            AuditTamperedError: A record of the audit log is bad.
            LedgerTamperedError: The ledger is bad, or not the one that the audit log
                names.
            AuditUnavailableError: One of them can't be read now.
        """
        self._ledger.check_usable()
        if not self._is_ledger_verified:
            yield from self._ledger.verify()
            self._is_ledger_verified = True
        head = self._audit.head().seq
        while self._next <= head:
            self._next = max(self._next, self._audit.first_seq)
            self._verify(self._next, _BLOCK)
            try:
                lines = self._audit.lines(self._next, _BLOCK)
            except InvalidInputError:
                continue  # They were pruned just now.
            for line in lines:
                reach = reach_of(event_of(line, self._next))
                if reach is not None:
                    self._note(reach)
                self._next += 1
            yield
        if self._lost is not None:
            self._ledger.check(self._lost)
        self._is_compared = True

    def _note(self, reach: Reach) -> None:
        if reach.former:
            self._lost = None
        if self._ledger.is_another(reach.anchor):
            self._lost = reach.anchor
        else:
            self._ledger.check(reach.anchor)
            self.known = reach.anchor
