# SPDX-License-Identifier: MIT
"""
Approval register over an untrusted store.

Each step reads and authenticates the record, checks the rules, and replaces the record
if it is unchanged. Expiry is stored before it is reported, and time never goes back, so
that no clock change revives an approval.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from hsm_core._internal.approvals import states as rules
from hsm_core._internal.approvals.records import (
    MAX_RECORD_BYTES,
    encode_approval,
    entry_of,
)
from hsm_core._internal.approvals.requests import ApprovalRequest, new_approval
from hsm_core._internal.approvals.stored_approvals import ApprovalReader, place_of
from hsm_core.errors import (
    ApprovalNotFoundError,
    ApprovalTamperedError,
    ConflictError,
    GenerationConflictError,
    InputSizeError,
)
from hsm_core.model import Approval, ApprovalDecision, ApprovalDemand, Caller, Role
from hsm_core.protocols import (
    ApprovalChange,
    ApprovalQuery,
    AuditDraft,
)

Rule: TypeAlias = Callable[[Approval, int], Approval]
"""Returns the approval after a step, given the approval before it and the time."""

_ATTEMPTS: Final = 128
_EXAMINED: Final = 10

_REQUEST_BYTES: Final = 32 * 1024
_GRANT_BYTES: Final = 48 * 1024
_DENIAL_BYTES: Final = 56 * 1024
"""Size limits that leave space for the later steps of an approval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredApprovalPage:
    """
    Approvals, newest first.

    Attributes:
        tampered: Ids of records that were met and can't be believed.
        after: Where to go on, for `ApprovalQuery.after`; None at the end.
    """

    approvals: tuple[Approval, ...]
    tampered: tuple[str, ...] = ()
    after: tuple[int, str] | None = None


class ApprovalRegister(ApprovalReader):
    """Approval register of an HSM. Thread-safe."""

    def get(self, approval_id: str) -> Approval:
        """
        Return an approval as it is now.

        Raises:
            ApprovalNotFoundError: There is none of this id.
            ApprovalTamperedError: What lies there is not what was written.
            StoreUnavailableError: It can't be read, or its end not be written down.
        """
        return self._change(approval_id, _unchanged)

    def remove(self, approval_ids: Sequence[str]) -> None:
        """
        Delete approvals that came to an end.

        Raises:
            StoreUnavailableError: Some may be deleted.
        """
        with self.witness.removal(approval_ids):
            self.store.remove(approval_ids)

    def insert(
        self, request: ApprovalRequest, *, step: AuditDraft | None = None
    ) -> Approval:
        """
        Store a new request; repeating it changes nothing.

        Raises:
            InvalidInputError: A field of the request can't be one.
            ConflictError: There is another approval of this id.
            StoreUnavailableError: It was not written, unless it is an
                OutcomeUnknownError.
        """
        with self._locks.held(request.approval_id):
            return self._insert(request, step)

    def _insert(self, request: ApprovalRequest, step: AuditDraft | None) -> Approval:
        wanted = new_approval(request, self.time.now())
        record = self._encoded(wanted, _REQUEST_BYTES)
        try:
            if self.store.get(request.approval_id) is not None:
                raise GenerationConflictError
            with self.witness.change(None, wanted, record, step):
                self.store.commit(ApprovalChange(entry_of(wanted), record, 0))
        except GenerationConflictError:
            found = self._changed(request.approval_id, _unchanged)
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

        Where a *generation* is given, they have seen that one. What they said before
        stays said.

        Raises:
            GenerationConflictError: It is another one by now.
            AccessDeniedError: They decide on their own request, or may not decide.
            ConflictError: They said the opposite before, or it is too late.
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

        return self._change(approval_id, rule, limit, step)

    def withdraw(
        self,
        approval_id: str,
        *,
        principal: str,
        distinct_certificates: bool = True,
        step: AuditDraft | None = None,
    ) -> Approval:
        """
        Withdraw a decision; see `rules.withdrawn`.

        Raises:
            AccessDeniedError: They have granted nothing here.
            ConflictError: It is in use, or came to an end.
            HSMError: As `get` and `insert`.
        """
        return self._change(
            approval_id,
            lambda found, now: rules.withdrawn(
                found, principal, now, distinct_certificates=distinct_certificates
            ),
            step=step,
        )

    def review(
        self,
        approval_id: str,
        demands: Sequence[ApprovalDemand],
        is_trusted: Callable[[ApprovalDecision], bool],
        *,
        distinct_certificates: bool = True,
        step: AuditDraft | None = None,
    ) -> Approval:
        """
        Review an approval under the current policy; see `rules.reviewed`.

        Raises:
            HSMError: As `get` and `insert`.
        """
        return self._change(
            approval_id,
            lambda found, now: rules.reviewed(
                found,
                demands,
                is_trusted,
                now,
                distinct_certificates=distinct_certificates,
            ),
            step=step,
        )

    def reserve(
        self,
        approval_id: str,
        *,
        operation_id: str,
        digest: str,
        requester: str,
        step: AuditDraft | None = None,
    ) -> Approval:
        """
        Reserve a granted approval for one operation, exclusively.

        Raises:
            AccessDeniedError: It is for another operation, or for another person.
            ConflictError: It is not granted, or not any more.
            HSMError: As `get` and `insert`.
        """
        return self._change(
            approval_id,
            lambda found, now: rules.reserved(found, operation_id, digest, requester),
            step=step,
        )

    def release(
        self, approval_id: str, *, operation_id: str, step: AuditDraft | None = None
    ) -> Approval:
        """
        Release a reserved approval whose operation was not done.

        Raises:
            ConflictError: Another operation has it, or it came to an end.
            HSMError: As `get` and `insert`.
        """
        return self._change(
            approval_id,
            lambda found, now: rules.released(found, operation_id),
            step=step,
        )

    def consume(
        self, approval_id: str, *, operation_id: str, step: AuditDraft | None = None
    ) -> Approval:
        """
        Consume an approval whose operation was done.

        Raises:
            ConflictError: Another operation has it, or none.
            HSMError: As `get` and `insert`.
        """
        return self._change(
            approval_id,
            lambda found, now: rules.consumed(found, operation_id, now),
            step=step,
        )

    def cancel(
        self, approval_id: str, *, requester: str, step: AuditDraft | None = None
    ) -> Approval:
        """
        Cancel an approval of the requester.

        Raises:
            AccessDeniedError: Another person asks.
            ConflictError: It is in use, or came to another end.
            HSMError: As `get` and `insert`.
        """
        return self._change(
            approval_id,
            lambda found, now: rules.cancelled(found, requester, now),
            step=step,
        )

    def find(self, query: ApprovalQuery) -> StoredApprovalPage:
        """
        Return a page of approvals that are what the query asks for.

        A page may be shorter than its limit, or empty, and yet say where to go on.

        Raises:
            StoreUnavailableError: They can't be read, or an end not be written down.
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
            query = dataclasses.replace(query, after=place_of(entries[-1]))
        return _page(found, tampered, query.after)

    def current(self, approval_id: str) -> Approval | None:
        """Return what `get` returns, or None where it isn't found or tampered with."""
        try:
            return self.get(approval_id)
        except (ApprovalTamperedError, ApprovalNotFoundError):
            return None

    def _change(
        self,
        approval_id: str,
        rule: Rule,
        limit: int = MAX_RECORD_BYTES,
        step: AuditDraft | None = None,
    ) -> Approval:
        with self._locks.held(approval_id):
            return self._changed(approval_id, rule, limit, step)

    def _changed(
        self,
        approval_id: str,
        rule: Rule,
        limit: int = MAX_RECORD_BYTES,
        step: AuditDraft | None = None,
    ) -> Approval:
        found = self.read(approval_id)
        for _ in range(_ATTEMPTS):
            wanted = self._step(found, rule, limit, step)
            if wanted is not None:
                return wanted
            refused, found = found, self.read(approval_id)
            if found.generation == refused.generation:
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
        record = self._encoded(after, limit)
        change = ApprovalChange(entry_of(after), record, before.generation)
        try:
            with self.witness.change(before, after, record, step):
                self.store.commit(change)
        except GenerationConflictError:
            return False
        return True

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
