# SPDX-License-Identifier: MIT
"""
Approval workflow: request, decide, reserve, consume.

An approval binds its requester and the resolved operation by a keyed digest. It is
reserved for one operation before that is begun, and used up after its outcome is on
record; what a crash leaves between is settled by what the audit log says.
"""

from __future__ import annotations

import hmac
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Any, Final, Protocol

import msgspec

from hsm_core import consent, wire
from hsm_core import operations as ops
from hsm_core._internal.approvals import states
from hsm_core._internal.approvals.journal import ApprovalJournal
from hsm_core._internal.approvals.presentation import context_of, present, state_before
from hsm_core._internal.approvals.repository import ApprovalRegister
from hsm_core._internal.approvals.service import ApprovalService
from hsm_core._internal.keyring.documents import KeyDocument, audited_caller, key_facts
from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core._internal.lib.concurrency import Locks
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.policy.facts import facts_after
from hsm_core._internal.policy.in_force import PolicyHolder
from hsm_core.consent import ShownOperation
from hsm_core.errors import (
    AccessDeniedError,
    ApprovalNotFoundError,
    ApprovalRequiredError,
    ApprovalTamperedError,
    ConflictError,
    HSMError,
    KeyTamperedError,
    TooManyApprovalsError,
    UnavailableError,
)
from hsm_core.identities import identity, is_reserved, same_person
from hsm_core.model import (
    Approval,
    ApprovalDecision,
    ApprovalDemand,
    ApprovalState,
    Caller,
    Phase,
)
from hsm_core.protocols import ApprovalQuery, AuditDraft, Entropy

_S: Final = ApprovalState
_OPEN: Final = frozenset({_S.PENDING, _S.GRANTED, _S.RESERVED})
_TRIES: Final = 8
_ENDS: Final[dict[type[ops.Operation[Any]], type[ops.Operation[Any]]]] = {
    ops.CancelDestroy: ops.DestroyKey,
    ops.ReleaseKey: ops.HoldKey,
    ops.ResumeKey: ops.SuspendKey,
}
"""By operation, the one whose effect it ends: that one, and no later one."""


class ApprovalReservation(msgspec.Struct):
    """
    Approval reserved by one operation.

    Attributes:
        generation: Of the reserved approval; a later one is another reservation.
        stack: Locks held until the reservation is settled.
    """

    approval_id: str
    operation_id: str
    caller: Caller
    generation: int = 0
    stack: ExitStack = msgspec.field(default_factory=ExitStack)


def step_of(
    kind: str, caller: Caller, *, rule: str = "", digest: str = ""
) -> AuditDraft:
    """Return what the audit log says of a step besides the approval itself."""
    return AuditDraft(
        phase=Phase.INTENT,
        kind=kind,
        caller=audited_caller(caller),
        request_id=caller.request_id,
        rule=rule,
        digest=digest,
    )


class ApprovalContext(Protocol):
    """
    Request that requires approval, resolved and authorized.

    Attributes:
        others: Documents of the further keys, by field.
        named_approval: Approval named by the caller, or empty.
        operation_id: ID of the operation; empty if it has none yet.
    """

    operation_id: str
    caller: Caller
    document: KeyDocument | None
    others: Mapping[str, KeyDocument]
    named_approval: str

    @property
    def operation(self) -> ops.Operation[Any]:
        """The resolved operation."""
        ...

    @property
    def demands(self) -> tuple[ApprovalDemand, ...]:
        """Approvals that the policy requires."""
        ...

    @property
    def rule(self) -> str:
        """Rule that allowed the operation."""
        ...


class ApprovalWorkflow:
    """
    Approval workflow: request, decide, reserve, consume. Thread-safe.

    Args:
        register: The approvals.

        steps: Their journal.

        people: Approval service, which also checks approvers.

        ring: Key ring for MACs and sealing.

        entropy: For ids and salts.

        policy: The one in force.

        last_used_at: Returns the time of a key's last use, in microseconds since 1970,
            or 0.

        is_done: Returns whether an operation was committed or aborted, by its ID.

        log_id: Audit log of this node of a cluster; empty on a single machine.

        most_open: Maximum number of open requests per person, over all spellings of the
            name.
    """

    def __init__(
        self,
        register: ApprovalRegister,
        steps: ApprovalJournal,
        people: ApprovalService,
        ring: KeyRing,
        entropy: Entropy,
        policy: PolicyHolder,
        *,
        last_used_at: Callable[[KeyDocument], int],
        is_done: Callable[[str], bool],
        log_id: str,
        most_open: int,
    ) -> None:
        self.people = people
        self.waiting = steps.waiting
        self.checking = steps.checking
        self._register = register
        self._ring = ring
        self._entropy = entropy
        self._policy = policy
        self._last_used_at = last_used_at
        self._is_done = is_done
        self._log_id = log_id
        self._most_open = most_open
        self._requesters = Locks()
        self._reserved = Locks()
        self._unsettled: dict[str, tuple[ApprovalReservation, bool | None]] = {}

    def digest(self, asked: ApprovalContext) -> str:
        """
        Return the keyed digest that an approval binds, hex.

        It covers the requester, every field of the operation with its defaults, and id,
        algorithm and version of every key that it names: the version that it names too,
        else the current one. So what is about an old version is not concerned where the
        key is rotated. It also covers what the operation changes of the key as it is
        now, as approvers see it: they consent to a change from one to the other.
        """
        named = getattr(asked.operation, "version", None)
        first, others = asked.document, asked.others.values()
        keys = [
            wire.encode_packed([d.key_id, d.algorithm, version or d.current])
            for d, version in [(first, named), *((d, None) for d in others)]
            if d is not None
        ]
        if isinstance(asked.operation, ops.UpdateKey) and first is not None:
            # A rule can match all of the first three, whichever changes.
            facts = [first.name, first.owner, sorted(first.tags)]
            if asked.operation.description is not None:
                facts.append(first.description)
            keys.append(wire.encode_packed(facts))
        elif first is not None:
            before = list(state_before(asked.operation, first).items())
            done = _ENDS.get(type(asked.operation))
            if done is not None:
                # A later one may look the same.
                ids = [r.id for r in first.operations if r.kind == done.__name__]
                before.append(("ends", ids[-1:]))
            if before:
                keys.append(wire.encode_packed(before))
        return self._ring.approval_digest(
            asked.caller.principal.encode("utf-8", "surrogatepass"),
            _every_field(asked.operation),
            *keys,
        )

    def require(self, asked: ApprovalContext) -> Approval:
        """
        Return the granted approval that an operation may use.

        Raises:
            ApprovalRequiredError: Other people must approve first; a request is open.
            AccessDeniedError: The named approval is for another operation.
            ConflictError: The named approval is closed.
            TooManyApprovalsError: The caller has too many open requests.
            HSMError: Store or audit log can't be used.
        """
        digest = self.digest(asked)
        for _ in range(_TRIES):
            approval = self._matching(asked, digest)
            if approval.state is _S.RESERVED:
                # The operation that reserved it ends soon.
                with self.held(approval.approval_id):
                    approval = self._register.get(approval.approval_id)
            if approval.state in {_S.PENDING, _S.GRANTED}:
                approval = self._reviewed(asked, approval)
            if approval.state is _S.GRANTED:
                return approval
            if approval.state in {_S.PENDING, _S.RESERVED}:
                raise self._required(approval)
            if asked.named_approval:
                raise _ended(approval)
        raise ConflictError("The approval is being changed by others. Try again.")

    def reserve(self, asked: ApprovalContext, operation_id: str) -> ApprovalReservation:
        """
        Reserve the approval of an operation, exclusively.

        Callers must `settle` it.

        Raises:
            HSMError: As `require`.
        """
        digest = self.digest(asked)
        for _ in range(_TRIES):
            approval = self.require(asked)
            hold = ApprovalReservation(approval.approval_id, operation_id, asked.caller)
            hold.stack.enter_context(self.held(approval.approval_id))
            try:
                approval = self._reviewed(asked, self._register.get(hold.approval_id))
                if approval.state is _S.GRANTED and self._reserve(hold, digest):
                    failpoint("approval.reserved")
                    return hold
            except UnavailableError:
                # It may be reserved for what is not going to be done.
                self.settle(hold, done=False)
                raise
            except BaseException:
                hold.stack.close()
                raise
            # Another operation has used it, or it came to an end, since it was found.
            hold.stack.close()
        raise ConflictError("The approval is being changed by others. Try again.")

    def _reserve(self, hold: ApprovalReservation, digest: str) -> bool:
        """Return whether an approval is reserved now; False if it moved meanwhile."""

        def rule(found: Approval, now: int) -> Approval:
            requester, log_id = hold.caller.principal, self._log_id
            after = states.reserved(found, hold.operation_id, digest, requester, log_id)
            hold.generation = after.generation
            return after

        step = step_of("system.approval-reserved", hold.caller)
        try:
            self._register.change(hold.approval_id, rule, step=step)
        except ConflictError:
            return False  # Another node was quicker.
        return True

    def is_reserved_for(self, approval_id: str, operation_id: str) -> bool:
        """
        Return whether an operation has reserved an approval, or consumed it.

        Raises:
            StoreUnavailableError: It can't be read.
        """
        approval = self._register.current(approval_id)
        return approval is not None and approval.operation_id == operation_id

    def state_of(self, approval_id: str) -> Approval:
        """
        Return the current state of an approval, for any caller.

        Raises:
            HSMError: There is none, or it can't be read or believed.
        """
        return self._register.get(approval_id)

    def withdraw(
        self, caller: Caller, operation: ops.Withdraw, step: AuditDraft
    ) -> ops.ApprovalInfo:
        """
        Withdraw the caller's approval, after waiting for a running use.

        Raises:
            HSMError: It can't be; see `ApprovalService.withdraw`.
        """
        with self.held(operation.approval_id):
            return self.people.withdraw(caller, operation, step)

    def held(self, approval_id: str) -> AbstractContextManager[None]:
        """Return a context that locks an approval for other users."""
        return self._reserved.held(approval_id)

    @property
    def is_settled(self) -> bool:
        """Whether no approval is reserved, or locked by who may reserve it."""
        return not (self._unsettled or self._reserved.are_held)

    def settle(self, hold: ApprovalReservation, *, done: bool | None) -> None:
        """
        Consume a reserved approval, or release it.

        Raises nothing: a failed write is repeated later, and until then the approval is
        unusable.

        Args:
            hold: Reservation of the operation.

            done: Whether the operation was done; None if that is unknown yet.
        """
        try:
            self._unsettled[hold.operation_id] = hold, done
            if done is not None:
                with suppress(HSMError):
                    self._settle(hold, done=done)
                    self._unsettled.pop(hold.operation_id, None)
        finally:
            hold.stack.close()

    def settle_again(
        self, was_done: Callable[[ApprovalReservation], bool | None]
    ) -> None:
        """
        Settle the reservations that could not be settled before.

        An approval that was altered is left as it is, and the others are settled.

        Args:
            was_done: Finds out whether an operation was done.

        Raises:
            HSMError: It still can't be.
        """
        for operation_id, entry in list(self._unsettled.items()):
            hold, done = entry
            with self.held(hold.approval_id):
                if self._unsettled.get(operation_id) is not entry:
                    continue  # Settled meanwhile, or tried and reserved again.
                found = was_done(hold) if done is None else done
                if found is None:
                    continue
                try:
                    self._settle(hold, done=found)
                except ApprovalTamperedError:
                    continue  # It must not keep others from being settled.
                except ConflictError:
                    pass
                self._unsettled.pop(operation_id, None)

    def _settle(self, hold: ApprovalReservation, *, done: bool) -> None:
        failpoint("approval.before_settling")
        kind = "used" if done else "released"

        def rule(found: Approval, now: int) -> Approval:
            if found.state is _S.RESERVED and found.generation != hold.generation:
                # The same operation can have reserved it again, on another node.
                raise ConflictError("The approval was reserved again.")
            if done:
                return states.consumed(found, hold.operation_id, now)
            return states.released(found, hold.operation_id)

        step = step_of(f"system.approval-{kind}", hold.caller)
        self._register.change(hold.approval_id, rule, step=step)

    def _matching(self, asked: ApprovalContext, digest: str) -> Approval:
        if asked.named_approval:
            return self._named(asked, digest)
        with self._requesters.held(identity(asked.caller.principal)):
            found = self.find(asked.caller.principal, digest)
            if found is None and self._is_done(asked.operation_id):
                raise ConflictError("Another node has executed the operation.")
            return found or self._ask(asked, digest)

    def find(self, requester: str, digest: str) -> Approval | None:
        """Return the open approval of a person for an operation, or None."""
        query = ApprovalQuery(states=_OPEN, requester=requester, digest=digest)
        found = self._register.find(query).approvals
        granted = [a for a in found if a.state is _S.GRANTED]
        return next(iter([*granted, *found]), None)

    def _named(self, asked: ApprovalContext, digest: str) -> Approval:
        approval = self._register.get(asked.named_approval)
        if not same_person(approval.requester, asked.caller.principal):
            raise ApprovalNotFoundError
        mine = approval.requester == asked.caller.principal
        if not mine or not hmac.compare_digest(approval.digest, digest):
            raise AccessDeniedError(
                "The approval was granted for a different operation."
            )
        if approval.state not in _OPEN:
            raise _ended(approval)
        return approval

    def ask(self, asked: ApprovalContext, *, minimum_seconds: int = 0) -> Approval:
        """
        Return the open approval for an operation; open a request if there is none.

        Args:
            asked: The operation.

            minimum_seconds: Minimum time until it expires.

        Raises:
            TooManyApprovalsError: The caller has too many open requests.
            HSMError: Store or audit log can't be used.
        """
        digest = self.digest(asked)
        with self._requesters.held(identity(asked.caller.principal)):
            found = self.find(asked.caller.principal, digest)
            return found or self._ask(asked, digest, minimum_seconds)

    def _ask(
        self, asked: ApprovalContext, digest: str, minimum_seconds: int = 0
    ) -> Approval:
        self._check_room(asked.caller.principal)
        approval_id = str(uuid.UUID(bytes=self._entropy.random_bytes(16), version=4))
        salt = self._entropy.random_bytes(consent.SALT_BYTES)
        shown = self._shown(asked, salt)
        sealed = self._ring.seal_approval(
            wire.encode_packed(shown), approval_id=approval_id, entropy=self._entropy
        )
        seconds = min(demand.seconds for demand in asked.demands)
        now = self._register.time.now()
        wanted = Approval(
            approval_id=approval_id,
            generation=1,
            state=ApprovalState.PENDING,
            kind=type(asked.operation).__name__,
            digest=digest,
            requester=asked.caller.principal,
            demands=tuple(dict.fromkeys(asked.demands)),
            created_at=now,
            expires_at=now + max(seconds, minimum_seconds) * 1_000_000,
            uses_left=min(demand.uses for demand in asked.demands),
            salt=salt,
            shown_sha256=consent.shown_sha256(salt, shown),
            sealed=sealed,
            key_id=asked.document.key_id if asked.document else "",
            credential_id=asked.caller.credential_id,
            certificate_sha256=asked.caller.certificate_sha256,
            policy=self._policy.policy_hash(),
        )
        step = step_of(
            "system.approval-requested", asked.caller, rule=asked.rule, digest=digest
        )
        return self._register.insert(wanted, step=step)

    def _shown(self, asked: ApprovalContext, salt: bytes) -> ShownOperation:
        document, operation = asked.document, asked.operation
        frees_from: tuple[str, ...] = ()
        if isinstance(operation, ops.UpdateKey) and document is not None:
            before = key_facts(document)
            after = facts_after(operation, before)
            frees_from = self._policy.engine.freeing(before, after)
        context = context_of(
            operation,
            asked.caller,
            document,
            asked.others,
            salt=salt,
            frees_from=frees_from,
            last_used_at=self._last_used_at(document) if document else 0,
        )
        return present(
            operation,
            requester=asked.caller.principal,
            document=document,
            salt=salt,
            context=context,
        )

    def _check_room(self, requester: str) -> None:
        if is_reserved(requester):
            return  # Internal callers open one request for each due operation.
        own = [
            entry.approval_id
            for entry in self._register.entries(_OPEN)
            if same_person(entry.requester, requester)
        ]
        if len(own) < self._most_open:
            return
        # Some of them may have expired.
        found = map(self._register.current, own)
        if sum(a is not None and a.state in _OPEN for a in found) >= self._most_open:
            raise TooManyApprovalsError(
                f"You have {self._most_open} open approval requests, the maximum. "
                "Cancel some or wait for decisions.",
                limit=self._most_open,
            )

    def _reviewed(self, asked: ApprovalContext, approval: Approval) -> Approval:
        distinct = self._policy.engine.policy.distinct_certificates
        return self._register.change(
            approval.approval_id,
            lambda found, now: states.reviewed(
                found,
                asked.demands,
                lambda decision: self._trusts(approval, decision, asked.demands),
                now,
                distinct_certificates=distinct,
            ),
            step=step_of("system.approval-reviewed", asked.caller),
        )

    def _trusts(
        self,
        approval: Approval,
        decision: ApprovalDecision,
        demands: tuple[ApprovalDemand, ...],
    ) -> bool:
        """
        Return whether a decision is still valid under the policy in force.

        The signature must verify under a registered key, the credential must still be
        trusted, and the approver must still have every required role that they had.
        """
        roles = self.people.roles_now(decision)
        asked_for = {
            role
            for demand in (*approval.demands, *demands)
            for role in (*demand.roles, *demand.distinct_roles)
        }
        person = Caller(
            principal=decision.principal,
            roles=roles,
            credential_id=decision.credential_id,
            certificate_sha256=decision.certificate_sha256,
            certificate_subject=decision.certificate_subject,
            certificate_names=decision.certificate_names,
            source_address=decision.source_address,
            # If the policy requires that, it was; it can't be used twice.
            single_use=True,
        )
        try:
            is_kept = self.people.is_kept_from(person, approval)
        except KeyTamperedError:
            return False
        return (
            not is_kept
            and asked_for.isdisjoint(frozenset(decision.roles) - roles)
            and self.people.is_vouched_for(decision)
            and self.people.may_approve(person)
            and self.people.is_signed(approval, decision)
        )

    def _required(self, approval: Approval) -> ApprovalRequiredError:
        info = self.people.info(approval)
        short = "; ".join(info.missing) or (
            "wait until another operation releases the approval"
        )
        error = ApprovalRequiredError(
            f"Approval required: {short}.",
            approval_id=info.approval_id,
            digest=info.digest,
            expires_at=info.expires_at.isoformat().replace("+00:00", "Z"),
        )
        error.approval = info
        return error


def _every_field(operation: ops.Operation[Any]) -> bytes:
    """Return all of an operation, with what is at its default, as MessagePack."""
    kind = type(operation).__name__
    return wire.encode_packed([kind, msgspec.structs.asdict(operation)])


def _ended(approval: Approval) -> ConflictError:
    return ConflictError(
        f"Approval {approval.approval_id} is {approval.state}. Send the request "
        "without it to open a new one.",
        state=approval.state.value,
        approval_id=approval.approval_id,
    )
