# SPDX-License-Identifier: MIT
"""
Approval register over an untrusted store.

Each step reads and authenticates the record, checks the rules, and replaces the record
if it is unchanged. Expiry is stored before it is reported, and time never goes back, so
that no clock change revives an approval.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Final, TypeAlias

import msgspec

from hsm_core._internal.approvals import states as rules
from hsm_core._internal.approvals.journal import ApprovalJournal
from hsm_core._internal.approvals.records import (
    MAX_RECORD_BYTES,
    decode_approval,
    encode_approval,
    entry_of,
    latest_instant,
)
from hsm_core._internal.approvals.states import is_approval_id
from hsm_core._internal.lib.concurrency import Locks
from hsm_core._internal.time.clock import SteadyTime
from hsm_core.errors import (
    ApprovalNotFoundError,
    ApprovalTamperedError,
    ConflictError,
    GenerationConflictError,
    InputSizeError,
)
from hsm_core.model import Approval, ApprovalDecision, ApprovalState, Caller, Role
from hsm_core.protocols import (
    ApprovalChange,
    ApprovalEntry,
    ApprovalQuery,
    ApprovalStore,
    AuditDraft,
    Clock,
)

_NEWEST: Final = 256
_PAGE: Final = 1000
_MOMENT_SECONDS: Final = 0.05

Rule: TypeAlias = Callable[[Approval, int], Approval]
"""Returns the approval after a step, given the approval before it and the time."""

_ATTEMPTS: Final = 128
_LOOKS: Final = 4
"""How often an approval is read while other nodes change it."""
_EXAMINED: Final = 10
_REQUEST_BYTES: Final = 32 * 1024
_LIE_MICROSECONDS: Final = 60_000_000
"""How long an approval with a false index entry is not changed again."""
_GRANT_BYTES: Final = 48 * 1024
_DENIAL_BYTES: Final = 56 * 1024
"""Size limits that leave space for the later steps of an approval."""


class StoredApprovalPage(msgspec.Struct, frozen=True, kw_only=True):
    """
    Approvals, newest first.

    Attributes:
        tampered: Ids of records found that are not authentic.
        after: Where to go on, for `ApprovalQuery.after`; None at the end.
    """

    approvals: tuple[Approval, ...]
    tampered: tuple[str, ...] = ()
    after: tuple[int, str] | None = None


class ApprovalRegister:
    """
    Approvals of an HSM, each authenticated. Thread-safe.

    Args:
        store: Store of the approvals; not trusted.

        mac_of: MAC of a payload, 32 bytes; `KeyRing.approval_mac`.

        clock: The wall clock and the monotonic one.

        floor: Latest instant known otherwise, such as that of the last record of the
            trail; microseconds since 1970. It is never earlier than that, nor than
            what happened to the newest approvals.

    Raises:
        StoreUnavailableError: The store can't be read.

    Attributes:
        store: As given.
        journal: Records every change and knows the last written state; None until the
            store was compared with the audit log.
        time: Time for expiry.
        opened_at: When it was made, by that time.
    """

    def __init__(
        self,
        store: ApprovalStore,
        mac_of: Callable[[bytes], bytes],
        clock: Clock,
        *,
        floor: int = 0,
    ) -> None:
        self.store = store
        self.time = SteadyTime(clock, floor)
        self.journal: ApprovalJournal | None = None
        self._mac_of = mac_of
        self._locks = Locks()
        self._tampered: set[str] = set()
        self._lying_until: dict[str, int] = {}
        for entry in store.find(ApprovalQuery(limit=_NEWEST)):
            self.believed(entry.approval_id)
        self.opened_at = self.time.now()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self.store!r}>"

    @property
    def tampered(self) -> frozenset[str]:
        """Ids of the records met so far, or by the last check, not authentic."""
        return frozenset(self._tampered)

    def read(self, approval_id: str) -> Approval:
        """
        Return an approval as stored, though it may have expired.

        Raises:
            ApprovalNotFoundError: There is none of this id.
            ApprovalTamperedError: The stored approval was altered.
            StoreUnavailableError: It can't be read.
        """
        try:
            approval = self._read(approval_id)
        except ApprovalTamperedError:
            self._report(approval_id, "edited")
            raise
        self.time.seen(latest_instant(approval))
        return approval

    def _read(self, approval_id: str) -> Approval:
        journal, stored = self.journal, self._stored(approval_id)
        approval = self._decoded(approval_id, stored)
        if journal is None or journal.is_as_left(approval, stored or b""):
            return approval
        # A change that came in between looks like tampering.
        with journal.quiet():
            stored = self.store.get(approval_id)
            approval = self._decoded(approval_id, stored)
            journal.vouch(approval, stored or b"")
        return approval

    def _decoded(self, approval_id: str, stored: bytes | None) -> Approval:
        if stored is None:
            raise ApprovalNotFoundError
        return decode_approval(approval_id, stored, self._mac_of)

    def _stored(self, approval_id: str) -> bytes | None:
        """Return the stored form of an approval, as of its last change anywhere."""
        if not is_approval_id(approval_id):
            return None
        stored, journal = self.store.get(approval_id), self.journal
        for _ in range(_LOOKS):
            if journal is None or not journal.has_newer(approval_id, stored):
                break
            stored = self.store.get(approval_id)
        return stored

    def believed(self, approval_id: str) -> Approval | None:
        """Return what `read` returns, or None where it isn't found or tampered with."""
        try:
            with self._locks.held(approval_id):
                return self.read(approval_id)
        except (ApprovalTamperedError, ApprovalNotFoundError):
            return None

    def entries(
        self, states: frozenset[ApprovalState] = frozenset()
    ) -> Iterator[ApprovalEntry]:
        """
        Give the index facts of all approvals in these states, newest first.

        Raises:
            StoreUnavailableError: The store can't be read.
        """
        query = ApprovalQuery(states=states, limit=_PAGE)
        while entries := self.store.find(query):
            yield from entries
            query = msgspec.structs.replace(query, after=place_of(entries[-1]))

    def check(self) -> tuple[str, ...]:
        """
        Authenticate every record, and compare the index with them.

        Returns:
            Ids of the approvals that are not authentic.

        Raises:
            StoreUnavailableError: The store can't be read.
        """
        self._tampered.clear()
        self._lying_until.clear()
        doubtful = self._disagreeing()
        if doubtful:
            # What is being changed agrees in a moment, and is then not what it was.
            time.sleep(_MOMENT_SECONDS)
            again = self._disagreeing()
            same = [name for name in doubtful if doubtful[name] == again.get(name)]
            self._tampered.update(same)
        return tuple(sorted(self._tampered))

    def _disagreeing(self) -> dict[str, tuple[Approval, ApprovalEntry | None]]:
        unlisted = set(self.store.approval_ids())
        found: dict[str, tuple[Approval, ApprovalEntry | None]] = {}
        for entry in self.entries():
            unlisted.discard(entry.approval_id)
            approval = self.believed(entry.approval_id)
            if approval is not None and entry_of(approval) != entry:
                found[entry.approval_id] = approval, entry
        for approval_id in unlisted:
            approval = self.believed(approval_id)
            if approval is not None:
                found[approval_id] = approval, None
        return found

    def _lying(self, approval_id: str) -> ApprovalTamperedError:
        # The store refuses a record that nobody else has changed.
        self._report(approval_id, "index")
        return ApprovalTamperedError(
            f"The index entry of approval {approval_id} was altered in the store.",
            approval_id=approval_id,
        )

    def _report(self, approval_id: str, reason: str) -> None:
        self._tampered.add(approval_id)
        if self.journal is not None:
            self.journal.tell(approval_id, reason)

    def get(self, approval_id: str) -> Approval:
        """
        Return an approval as it is now.

        Raises:
            ApprovalNotFoundError: There is none of this id.
            ApprovalTamperedError: The stored approval was altered.
            StoreUnavailableError: It can't be read, or its expiry can't be stored.
        """
        return self.change(approval_id, _unchanged)

    def remove(self, approval_ids: Sequence[str]) -> None:
        """
        Delete closed approvals.

        Raises:
            StoreUnavailableError: Some may be deleted.
        """
        journal = self.journal
        with journal.removal(approval_ids) if journal else nullcontext():
            self.store.remove(approval_ids)

    def insert(self, wanted: Approval, *, step: AuditDraft | None = None) -> Approval:
        """
        Store a new request; repeating it changes nothing.

        Raises:
            InvalidInputError: A field of the request can't be one.
            ConflictError: There is another approval of this id.
            StoreUnavailableError: It was not written, unless it is an
                OutcomeUnknownError.
        """
        rules.check_new(wanted)
        record = self._encoded(wanted, _REQUEST_BYTES)
        with self._locks.held(wanted.approval_id):
            try:
                if self.store.get(wanted.approval_id) is not None:
                    raise GenerationConflictError
                self._commit(None, wanted, record, step)
            except GenerationConflictError:
                found = self._changed(wanted.approval_id, _unchanged)
                if (found.digest, found.requester) != (wanted.digest, wanted.requester):
                    raise ConflictError(
                        "An approval with this ID already exists."
                    ) from None
                return found
        return wanted

    def decide(
        self,
        approval_id: str,
        caller: Caller,
        *,
        granted: bool,
        credential_key: str = "",
        comment: str = "",
        signature: bytes = b"",
        signer: str = "",
        generation: int = 0,
        distinct_certificates: bool = True,
        step: AuditDraft | None = None,
    ) -> Approval:
        """
        Store a decision; see `rules.decided`.

        A given *generation* must be the current one. Repeating a decision changes
        nothing.

        Raises:
            GenerationConflictError: The approval has another generation.
            AccessDeniedError: The caller is the requester, or may not decide.
            ConflictError: They decided otherwise before, or it is closed.
            HSMError: As `get` and `insert`.
        """
        limit = _GRANT_BYTES if granted else _DENIAL_BYTES

        def rule(found: Approval, now: int) -> Approval:
            decision = ApprovalDecision(
                principal=caller.principal,
                granted=granted,
                at=now,
                credential_id=caller.credential_id,
                credential_key=credential_key,
                certificate_sha256=caller.certificate_sha256,
                certificate_subject=caller.certificate_subject,
                certificate_names=caller.certificate_names,
                source_address=caller.source_address,
                comment=comment,
                roles=tuple(role for role in Role if role in caller.roles),
                signature=signature,
                signer=signer,
            )
            after = rules.decided(
                found, decision, distinct_certificates=distinct_certificates
            )
            if after is not found and generation not in {0, found.generation}:
                raise GenerationConflictError(
                    "The approval changed after it was shown. Review it again.",
                    generation=found.generation,
                )
            return after

        return self.change(approval_id, rule, limit=limit, step=step)

    def change(
        self,
        approval_id: str,
        rule: Rule,
        *,
        limit: int = MAX_RECORD_BYTES,
        step: AuditDraft | None = None,
    ) -> Approval:
        """
        Make one step of an approval: read, check the rule, replace if unchanged.

        Raises:
            HSMError: As *rule*, `get` and `insert`.
        """
        with self._locks.held(approval_id):
            return self._changed(approval_id, rule, limit, step)

    def find(self, query: ApprovalQuery) -> StoredApprovalPage:
        """
        Return a page of approvals that match a query.

        A page may be shorter than its limit, or empty, and not be the last.

        Raises:
            StoreUnavailableError: They can't be read, or an expiry can't be stored.
        """
        found: list[Approval] = []
        tampered: list[str] = []
        for _ in range(_EXAMINED):
            entries = self.store.find(query)
            for entry in entries:
                approval = self.current(entry.approval_id)
                if approval is not None and _is_wanted(approval, query):
                    found.append(approval)
                elif entry.approval_id in self._tampered:
                    tampered.append(entry.approval_id)
                if len(found) == query.limit:
                    return _page(found, tampered, place_of(entry))
            if len(entries) < query.limit:
                return _page(found, tampered, None)
            query = msgspec.structs.replace(query, after=place_of(entries[-1]))
        return _page(found, tampered, query.after)

    def current(self, approval_id: str) -> Approval | None:
        """Return what `get` returns, or None where it isn't found or tampered with."""
        try:
            return self.get(approval_id)
        except (ApprovalTamperedError, ApprovalNotFoundError):
            return None

    def _changed(
        self,
        approval_id: str,
        rule: Rule,
        limit: int = MAX_RECORD_BYTES,
        step: AuditDraft | None = None,
    ) -> Approval:
        found = self.read(approval_id)
        if self.time.now() < self._lying_until.get(approval_id, 0):
            raise self._lying(approval_id)
        for _ in range(_ATTEMPTS):
            wanted = self._step(found, rule, limit, step)
            if wanted is not None:
                return wanted
            refused, found = found, self.read(approval_id)
            if found.generation == refused.generation:
                # Each try leaves an intent in the audit log.
                self._lying_until[approval_id] = self.time.now() + _LIE_MICROSECONDS
                raise self._lying(approval_id)
        raise GenerationConflictError(
            "The approval is being changed by others. Try again."
        )

    def _step(
        self, found: Approval, rule: Rule, limit: int, step: AuditDraft | None
    ) -> Approval | None:
        now = self.time.now()
        current = rules.expired(found, now)
        if current is not found and not self._replace(found, current):
            return None
        wanted = rule(current, now)
        if wanted is current or self._replace(current, wanted, limit, step):
            return wanted
        return None

    def _replace(
        self,
        before: Approval,
        after: Approval,
        limit: int = MAX_RECORD_BYTES,
        step: AuditDraft | None = None,
    ) -> bool:
        try:
            self._commit(before, after, self._encoded(after, limit), step)
        except GenerationConflictError:
            return False
        return True

    def _commit(
        self,
        before: Approval | None,
        after: Approval,
        record: bytes,
        step: AuditDraft | None,
    ) -> None:
        generation, journal = before.generation if before else 0, self.journal
        change = ApprovalChange(entry_of(after), record, generation)
        with journal.change(before, after, record, step) if journal else nullcontext():
            self.store.commit(change)

    def _encoded(self, approval: Approval, limit: int) -> bytes:
        record = encode_approval(approval, self._mac_of)
        if len(record) > limit:
            raise InputSizeError("approval", actual=len(record), maximum=limit)
        return record


def _unchanged(approval: Approval, now: int) -> Approval:
    return approval


def _is_wanted(approval: Approval, query: ApprovalQuery) -> bool:
    return (
        (not query.states or approval.state in query.states)
        and query.requester in {"", approval.requester}
        and query.digest in {"", approval.digest}
    )


def _page(
    found: list[Approval], tampered: list[str], after: tuple[int, str] | None
) -> StoredApprovalPage:
    return StoredApprovalPage(
        approvals=tuple(found), tampered=tuple(tampered), after=after
    )


def place_of(entry: ApprovalEntry) -> tuple[int, str]:
    """Return where an entry stands in the order of pages."""
    return entry.created_at, entry.approval_id
