# SPDX-License-Identifier: MIT
"""First stages of the pipeline: resolve, authorize, approve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hsm_core import wire
from hsm_core._internal.approvals.workflow import ApprovalWorkflow
from hsm_core._internal.handlers.base import (
    HANDLERS,
    INLINE_BYTES,
    AnyHandler,
    HandlerDependencies,
)
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.keyring.documents import is_key_id, key_facts
from hsm_core._internal.keyring.use_counters import NoRoomError
from hsm_core._internal.lib.cells import Snapshot
from hsm_core._internal.policy.engine import decide_on
from hsm_core._internal.policy.facts import CLOCK, joined
from hsm_core.errors import (
    AccessDeniedError,
    ApprovalRequiredError,
    ConflictError,
    DeadlineExceededError,
    HSMError,
    InvalidInputError,
    KeyNotFoundError,
    KeyTamperedError,
)
from hsm_core.identities import is_reserved
from hsm_core.model import Approval, Caller, KeyId
from hsm_core.operations import Effect, Operation
from hsm_core.protocols import Decision

_KEY_FIELDS: Final = {
    kind: (
        "key_id",
        *kind.other_keys,
    )
    if kind.names_key() and kind.effect is not Effect.RECOVERY
    else kind.other_keys
    for kind in HANDLERS
}
"""Fields of each operation that name existing keys, the one it is about first."""


class Admission:
    """
    Decides whether a request may go on.

    Args:
        services: Dependencies of the handlers.

        handlers: One per operation.
    """

    def __init__(
        self,
        services: HandlerDependencies,
        handlers: Mapping[type[Operation[Any]], AnyHandler[Any]],
    ) -> None:
        self._services = services
        self._handlers = handlers

    def handler(self, operation: Operation[Any]) -> AnyHandler[Any]:
        """Return the handler of an operation."""
        return self._handlers[type(operation)]

    def names_keys(self, operation: Operation[Any]) -> bool:
        """Return whether an operation is about keys that exist."""
        return bool(_KEY_FIELDS[type(operation)])

    def context(self, caller: Caller, operation: Operation[Any]) -> RequestContext[Any]:
        """Return a new context, under the policy that is in force now."""
        return RequestContext(caller, operation, self._services.policy.engine)

    def begin(self, context: RequestContext[Any]) -> None:
        """Decide from here on by what is in force now, and notice what changes."""
        services = self._services
        context.seen = Snapshot(
            services.policy.changes,
            services.inventory.lock.changes,
            services.crypto.changes,
        )
        context.policy = services.policy.engine

    def admit(
        self, context: RequestContext[Any], handler: AnyHandler[Any]
    ) -> RequestContext[Any]:
        """Resolve and authorize; nothing is disclosed before the policy decision."""
        if not context.operation.while_locked:
            self._services.inventory.lock.check()
        fault = self._resolve(context, handler)
        self.authorise(context)
        # Where a name leads to no readable entry, there is no key to show.
        if fault is not None and not (
            handler.shows_tampered
            and isinstance(fault, KeyTamperedError)
            and is_key_id(context.key_id)
        ):
            raise fault
        deadline = context.caller.deadline
        if deadline and self._services.clock.monotonic() > deadline:
            raise DeadlineExceededError(
                "The request's deadline passed while it was queued."
            )
        return context

    def _resolve(
        self, context: RequestContext[Any], handler: AnyHandler[Any]
    ) -> HSMError | None:
        """Find the keys of an operation, and fill its defaults; return what fails."""
        context.document, context.others, context.prepared = None, {}, []
        fault: HSMError | None = None
        try:
            for field in _KEY_FIELDS[type(context.operation)]:
                self._find_key(context, field)
            context.operation = handler.resolve(context.operation, context.document)
        except HSMError as error:
            fault = error
        is_use = context.operation.effect is Effect.USE
        # A use is bound by what is answered: hashing the payload takes longer.
        context.digest = "" if is_use else self.digest(context.operation)
        return fault

    def _find_key(self, context: RequestContext[Any], field: str) -> None:
        """
        Resolve the key that a field names.

        Raises:
            KeyNotFoundError: There is none; of a further key, it names the field.
            HSMError: It was tampered with, or can't be read.
            NoRoomError: A database would have to be asked, and that is not allowed.
        """
        inventory = self._services.inventory
        if context.at_once and inventory.feed is not None:
            raise NoRoomError
        reference: str = getattr(context.operation, field)
        is_subject = field == "key_id"
        if is_subject:
            context.key_id = reference
        entry = inventory.entry(reference)
        if entry is None:
            entry = inventory.look_again(reference)
        if entry is None:
            raise _missing(field)
        if is_subject:
            context.key_id = entry.key_id
        if reference != entry.key_id:
            context.operation = msgspec.structs.replace(
                context.operation, **{field: entry.key_id}
            )
        context.seen.add(inventory.tampered.cells.of(entry.key_id))
        document = inventory.document(KeyId(entry.key_id), entry)
        if reference not in (document.key_id, document.name):
            raise _missing(field)  # The index was wrong, and is put right by now.
        if is_subject:
            context.document = document
        else:
            context.others = {**context.others, field: document}

    def authorise(self, context: RequestContext[Any]) -> None:
        """
        Ask the policy, once for each key that the operation names.

        Raises:
            AccessDeniedError: It says no.
            KeyNotFoundError: It says no, and that the caller may not know of the key.
        """
        at, decisions = self._services.clock.now(), []
        for field, document in (("", context.document), *context.others.items()):
            key = key_facts(document) if document else None
            decision = decide_on(
                context.policy, context.operation, context.caller, key, at
            )
            if not decision.allowed:
                context.decision = decision
                raise _refusal(context, decision, field)
            decisions.append(decision)
        context.decision = decisions[0] if len(decisions) == 1 else joined(decisions)
        if context.approval_id and not context.decision.approvals:
            context.need_no_approval()

    def check_approvals(self, context: RequestContext[Any]) -> None:
        """
        Refuse what needs other people's consent and has it not.

        Raises:
            ApprovalRequiredError: They were asked now, or before.
            HSMError: See `ApprovalWorkflow.require`.
        """
        if not context.demands:
            return
        try:
            granted = self._services.consents.require(context)
        except ApprovalRequiredError as error:
            context.approval_id = str(error.facts["approval_id"])
            raise
        context.approval_id = granted.approval_id

    def take_approval(self, context: RequestContext[Any]) -> None:
        """
        Reserve the approval that an operation needs, if it needs one.

        It stays in ``context.hold`` until `settle_approval`.

        Raises:
            ApprovalRequiredError: Other people must agree first.
            HSMError: See `ApprovalWorkflow.reserve`.
        """
        if not context.demands:
            return
        if not context.operation_id:
            context.operation_id = self._services.entropy.random_bytes(16).hex()
        context.digest = context.digest or self.digest(context.operation)
        try:
            hold = self._services.consents.reserve(context, context.operation_id)
        except ApprovalRequiredError as error:
            context.approval_id = str(error.facts["approval_id"])
            raise
        context.hold, context.approval_id = hold, hold.approval_id
        try:
            if not self.is_held(context):
                raise ConflictError(
                    "The approval is being changed by others. Try again."
                )
        except BaseException:
            self.settle_approval(context, done=False)
            raise

    def is_held(self, context: RequestContext[Any]) -> bool:
        """
        Return whether an operation has the approval that it has reserved.

        A node that takes this one for dead releases it; from here on, ``context.seen``
        and ``context.held`` tell.

        Raises:
            StoreUnavailableError: It can't be read.
        """
        hold, services = context.hold, self._services
        if hold is None or services.inventory.feed is None:
            return True
        cell = services.inventory.tampered.cells.of(hold.approval_id)
        context.seen.add(cell)
        context.held = Snapshot(cell)
        return services.consents.is_reserved_for(hold.approval_id, hold.operation_id)

    def settle_approval(
        self, context: RequestContext[Any], *, done: bool | None
    ) -> None:
        """Use the approval up that an operation has, or give it back."""
        hold, context.hold = context.hold, None
        if hold is not None:
            self._services.consents.settle(hold, done=done)

    def bind(self, context: RequestContext[Any], bound: bytes) -> None:
        """Record a digest of a use of up to 64 KiB that nothing else binds."""
        if not (bound or context.digest):
            operation = context.operation
            if self.handler(operation).payload_bytes(operation) <= INLINE_BYTES:
                context.digest = self.digest(operation)

    def digest(self, operation: Operation[Any]) -> str:
        """Return the keyed digest of an operation, hex."""
        packed = wire.encode_packed(operation)
        return self._services.inventory.ring.payload_digest(packed)


def checked_caller(caller: Caller) -> Caller:
    """
    Return a caller whom the trail can name.

    Raises:
        InvalidInputError: The principal is empty or reserved, or a field breaks its
            limits.
    """
    if not caller.principal:
        raise InvalidInputError("principal must not be empty.", field="principal")
    if is_reserved(caller.principal):
        raise InvalidInputError(
            "principal must not be a name reserved for the HSM.",
            field="principal",
        )
    return wire.checked(caller)


def _missing(field: str) -> KeyNotFoundError:
    if field in ("", "key_id"):
        return KeyNotFoundError()
    return KeyNotFoundError(f"{field}: there is no such key.", field=field)


def _refusal(context: RequestContext[Any], decision: Decision, field: str) -> HSMError:
    """Return the error for a denial because of the key, or the one in a field."""
    if not decision.may_describe and (field or context.key_id):
        return _missing(field)
    kind = type(context.operation).__name__
    sentence = f"The policy denies {kind} (rule {decision.rule})."
    if decision.rule.startswith(CLOCK):
        sentence += " The clock of this node is wrong. Correct it."
    return AccessDeniedError(sentence, rule=decision.rule)


class ApprovalDesk:
    """
    Requests approvals, and tells how they are. Safe for many threads.

    What was granted is then executed by the pipeline, as for anybody: it finds the
    approval, and reserves and consumes it.

    Args:
        admission: Resolves and authorises.

        consents: All approvals.
    """

    def __init__(self, admission: Admission, consents: ApprovalWorkflow) -> None:
        self._admission = admission
        self._consents = consents

    def request(
        self,
        caller: Caller,
        operation: Operation[Any],
        *,
        minimum_seconds: int = 0,
    ) -> Approval | None:
        """
        Return the open approval for an operation, asked for now if there is none.

        Args:
            caller: Who will execute it.

            operation: As it will be sent.

            minimum_seconds: A new one lasts for at least so long, up to 366 days,
                though the policy gives it less.

        Returns:
            None if the policy asks for none.

        Raises:
            AccessDeniedError: The policy does not allow the operation.
            KeyNotFoundError: There is no such key.
            HSMError: Store or trail can't be used.
        """
        context = self._admitted(caller, operation)
        if not context.demands:
            return None
        return self._consents.ask(context, minimum_seconds=minimum_seconds)

    def find(self, caller: Caller, operation: Operation[Any]) -> Approval | None:
        """
        Return the open approval of a caller for an operation, or None.

        Raises:
            HSMError: As `request`.
        """
        context = self._admitted(caller, operation)
        if not context.demands:
            return None
        digest = self._consents.digest(context)
        return self._consents.find(caller.principal, digest)

    def state_of(self, approval_id: str) -> Approval:
        """
        Return an approval as it is now.

        Raises:
            ApprovalNotFoundError: There is none of this id.
            ApprovalTamperedError: What lies there is not what was written.
            HSMError: It can't be read.
        """
        return self._consents.state_of(approval_id)

    def _admitted(
        self, caller: Caller, operation: Operation[Any]
    ) -> RequestContext[Any]:
        context = self._admission.context(caller, operation)
        self._admission.admit(context, self._admission.handler(operation))
        return context
