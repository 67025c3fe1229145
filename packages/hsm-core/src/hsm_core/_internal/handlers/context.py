# SPDX-License-Identifier: MIT
"""Request context: state of a request from its entry to its audit record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final, Generic, TypeVar

import msgspec

from hsm_core import wire
from hsm_core._internal.approvals.states import is_approval_id
from hsm_core._internal.approvals.workflow import ApprovalReservation
from hsm_core._internal.keyring.documents import (
    KeyDocument,
    audited_caller,
    audited_key,
)
from hsm_core._internal.lib.cells import Snapshot
from hsm_core._internal.policy.engine import RuleEngine
from hsm_core._internal.policy.facts import audited_certificate, check_recordable
from hsm_core._internal.time.clock import utc_text
from hsm_core.algorithms import Algorithm, AlgorithmSpec, spec
from hsm_core.errors import HSMError, InvalidInputError, PreconditionFailedError
from hsm_core.limits import CIPHERTEXT_OVERHEAD_BYTES, Limits
from hsm_core.model import (
    ApprovalDemand,
    AuditDetail,
    Caller,
    Parameters,
    ParameterValue,
    Phase,
    Record,
)
from hsm_core.operations import Operation
from hsm_core.protocols import AuditDraft, Decision

Op = TypeVar("Op", bound=Operation[Any])

_NO_GENERATION: Final = 2**53
"""Upper bound of generations."""


class RequestContext(msgspec.Struct, Generic[Op]):
    """
    Request context: the one value that the steps of the pipeline pass on.

    Attributes:
        operation: As sent by the caller; later checked and resolved: IDs for names,
            standard names for aliases, defaults filled.
        policy: Policy that decides; the one in force when the request was last decided.
        seen: Cells of all that was read, as they were before.
        at_once: Whether `NoRoomError` is to be raised instead of reading the disk.
        is_checked: Whether the operation was checked against its type; its fields are
            recorded only after that.
        key_id: Key ID, or the name given by the caller if there is no such key.
        document: Document of the named key, if it can be read.
        others: Documents of the further keys that the operation names, by field.
        digest: Keyed digest of the operation, hex.
        prepared: Results of `AnyHandler.prepare` for the later steps.
        approval_id: Approval that the request is about, uses or waits for; initially
            the one named by the caller.
        named_approval: Approval named by the caller, or empty.
        expected_generation: Required generation of the key, or 0.
        hold: Reserved approval, or None.
        held: Snapshot that ends if another node changes the reserved approval.
        waited: Seconds spent waiting for the audit log.
        check_caller: `Request.check`, of a consent step.
    """

    caller: Caller
    operation: Op
    policy: RuleEngine
    seen: Snapshot = msgspec.field(default_factory=Snapshot)
    at_once: bool = False
    is_checked: bool = False
    operation_id: str = ""
    key_id: str = ""
    document: KeyDocument | None = None
    others: Mapping[str, KeyDocument] = msgspec.field(default_factory=dict)
    decision: Decision | None = None
    digest: str = ""
    prepared: list[Any] = msgspec.field(default_factory=list)
    document_before: str = ""
    approval_id: str = ""
    named_approval: str = ""
    expected_generation: int = 0
    hold: ApprovalReservation | None = None
    held: Snapshot | None = None
    waited: float = 0.0
    check_caller: Callable[[], None] | None = None

    @property
    def key(self) -> KeyDocument:
        """Document of an operation on an existing key."""
        if self.document is None:
            raise AssertionError("the pipeline resolves the key before its use")
        return self.document

    @property
    def documents(self) -> tuple[KeyDocument, ...]:
        """Documents of all keys that the operation names."""
        own = () if self.document is None else (self.document,)
        return (*own, *self.others.values())

    @property
    def subjects(self) -> tuple[str, ...]:
        """Keys, credential and approval; a change of one, elsewhere, meets a use."""
        named = (self.key_id, *(other.key_id for other in self.others.values()))
        approval_id = self.hold.approval_id if self.hold is not None else ""
        return tuple(filter(None, (*named, self.caller.credential_id, approval_id)))

    @property
    def spec(self) -> AlgorithmSpec:
        """Algorithm table row of the key."""
        return spec(Algorithm(self.key.algorithm))

    @property
    def rule(self) -> str:
        """Rule that allowed or denied the operation, or empty."""
        return self.decision.rule if self.decision else ""

    @property
    def demands(self) -> tuple[ApprovalDemand, ...]:
        """Approvals that the policy requires."""
        return self.decision.approvals if self.decision else ()

    def check(self, limits: Limits) -> None:
        """
        Check the operation against its type, and its byte strings for length first.

        Raises:
            InvalidInputError: It breaks a rule (see `wire.checked`), or a record can't
                show the caller.
        """
        self.operation = wire.checked(
            self.operation, longest=limits.payload_bytes + CIPHERTEXT_OVERHEAD_BYTES
        )
        self.is_checked = True
        self.approval_id = (
            getattr(self.operation, "approval_id", "") or self.approval_id
        )
        check_recordable(self.caller)

    def name_approval(self, approval_id: object) -> None:
        """
        Take the approval that the caller named, if they did.

        Raises:
            InvalidInputError: It can't be the id of one.
        """
        if not isinstance(approval_id, str) or (
            approval_id and not is_approval_id(approval_id)
        ):
            raise InvalidInputError(
                "approval_id must be a UUID in lower-case canonical form.",
                field="approval_id",
            )
        self.approval_id = self.named_approval = approval_id

    def expect_generation(self, generation: object) -> None:
        """
        Take the generation that the caller expects their key to be at, if they do.

        Raises:
            InvalidInputError: It is no generation, or the operation changes no key that
                is there.
        """
        if not isinstance(generation, int) or not 0 <= generation < _NO_GENERATION:
            raise InvalidInputError(
                f"expected_generation must be between 0 and {_NO_GENERATION - 1}.",
                field="expected_generation",
            )
        if generation and not hasattr(self.operation, "key_id"):
            raise InvalidInputError(
                "expected_generation applies only to operations that change an "
                "existing key.",
                field="expected_generation",
            )
        self.expected_generation = generation

    def check_generation(self) -> None:
        """
        Refuse to change a key that was changed since the caller looked at it.

        Raises:
            PreconditionFailedError: It is at another generation than was expected.
        """
        found = self.document.generation if self.document else 0
        if self.expected_generation not in {0, found}:
            raise PreconditionFailedError

    def need_no_approval(self) -> None:
        """Leave out of the record an approval that was named for nothing."""
        self.approval_id = getattr(self.operation, "approval_id", "")

    def draft(
        self,
        phase: Phase,
        *,
        code: str = "ok",
        version: int = 0,
        after: KeyDocument | None = None,
        document_after: str = "",
        set_digest: str = "",
        detail: AuditDetail | None = None,
        bound: bytes = b"",
        subjects: tuple[str, ...] = (),
        revision: int = 0,
    ) -> AuditDraft:
        """Return a record of this attempt."""
        shown, decision = after or self.document, self.decision
        parameters = audited_certificate(self.caller)
        if self.is_checked:
            parameters |= parameters_of(self.operation)
            if self.others:
                parameters |= facts_of_others(self.others)
        return AuditDraft(
            phase=phase,
            kind=type(self.operation).__name__,
            code=code,
            request_id=self.caller.request_id,
            operation_id=self.operation_id,
            key_id=after.key_id if after else self.key_id,
            version=version,
            generation=shown.generation if shown else 0,
            document_before=self.document_before,
            document_after=document_after,
            set_digest=set_digest,
            caller=audited_caller(self.caller),
            key=audited_key(shown) if shown else None,
            parameters=parameters,
            rule=decision.rule if decision else "",
            policy=self.policy.policy_hash,
            # Its outcome has no new decision.
            demands=()
            if phase is Phase.OUTCOME or not decision
            else decision.approvals,
            approval_id=self.approval_id,
            digest=self.digest,
            detail=detail,
            bound=bound,
            subjects=subjects,
            revision=revision,
        )


def facts_of_others(others: Mapping[str, KeyDocument]) -> Parameters:
    """Return what rules could match of the further keys that an operation names."""
    found: Parameters = {}
    for name, document in others.items():
        stem = name.removesuffix("_id")
        found[f"{stem}_algorithm"] = document.algorithm
        found[f"{stem}_usages"] = list(document.usages)
        texts = {"name": document.name, "owner": document.owner}
        found |= {f"{stem}_{fact}": text for fact, text in texts.items() if text}
        if document.tags:
            found[f"{stem}_tags"] = list(document.tags)
    return found


def code_of(error: BaseException) -> str:
    """Return the code that an error is recorded under."""
    return error.code if isinstance(error, HSMError) else HSMError.code


def parameters_of(operation: Operation[Any]) -> Parameters:
    """
    Return the facts of an operation that the trail keeps.

    Byte strings are represented by their length, as ``<field>_bytes``, lists of items
    by their number; what is at its default is left out.
    """
    found: Parameters = {}
    for name, default in _recorded_fields(type(operation)):
        value = getattr(operation, name)
        if value is None or value == default:
            continue
        if isinstance(value, bytes):
            found[f"{name}_bytes"] = len(value)
        elif isinstance(value, str):
            found[name] = str(value)
        else:
            found[name] = _plain(value)
    return found


@cache
def _recorded_fields(kind: type[Operation[Any]]) -> tuple[tuple[str, Any], ...]:
    fields = msgspec.structs.fields(kind)
    return tuple((f.name, f.default) for f in fields if f.name != "key_id")


def _plain(value: object) -> ParameterValue:
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, datetime):
        return utc_text(value)
    if isinstance(value, tuple) and value and isinstance(value[0], Record):
        return len(value)
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return str(value)
