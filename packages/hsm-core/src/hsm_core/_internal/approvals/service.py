# SPDX-License-Identifier: MIT
"""Approval service: list, approve, deny, withdraw and cancel."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from typing import Final

from msgspec.structs import replace

from hsm_core import consent, wire
from hsm_core import operations as ops
from hsm_core._internal.approvals import states
from hsm_core._internal.approvals.journal import ApprovalJournal
from hsm_core._internal.approvals.repository import ApprovalRegister
from hsm_core._internal.approvals.signatures import (
    CONSENT_DIGEST,
    SignatureCheck,
    consent_text,
)
from hsm_core._internal.keyring.documents import key_facts
from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.policy.in_force import PolicyHolder
from hsm_core._internal.time.clock import instant
from hsm_core._policies.certificate_identities import KnownPerson
from hsm_core._policies.rules import DEFAULT_DENY
from hsm_core._policies.token_identities import TokenIdentity
from hsm_core.consent import ShownOperation
from hsm_core.errors import (
    ApprovalNotFoundError,
    ApprovalTamperedError,
    ConflictError,
    InvalidInputError,
    KeyNotFoundError,
    KeyTamperedError,
    SignatureMismatchError,
)
from hsm_core.identities import same_person
from hsm_core.model import (
    Approval,
    ApprovalDecision,
    ApprovalState,
    Caller,
    KeyId,
    MessageDetail,
    Parameters,
    Phase,
    Role,
)
from hsm_core.protocols import ApprovalQuery, AuditDraft, CredentialKeys

_CURSOR: Final = re.compile(
    r"([0-9]{1,16})\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
)

_BETWEEN: Final = " "
"""Separates the digests of a key and of identity rules, which are hexadecimal."""


class CredentialCheck:
    """
    Remembers with each decision which key has vouched for its credential.

    For a token that the policy has mapped to a principal, it remembers the rules, too.

    Args:
        keys: Those that count now; None where who calls knows whom to trust.

        digest: Keyed digest of a name, hex: what is stored is to be no means to try
            whether a guessed key is right.

        people: Returns the people whom certificates alone name now.

        token_identities: Returns the identity rules about tokens that are in force.
    """

    def __init__(
        self,
        keys: CredentialKeys | None,
        digest: Callable[[str], str],
        people: Callable[[], Sequence[KnownPerson]] = tuple,
        token_identities: Callable[[], Sequence[TokenIdentity]] = tuple,
    ) -> None:
        self._keys = keys
        self._digest = digest
        self._people = people
        self._token_identities = token_identities

    def mark(self, caller: Caller) -> str:
        """Return what is kept of key and rules; empty where none is known."""
        names = (caller.credential_key, *caller.credential_rules)
        return _BETWEEN.join(self._digest(name) for name in names if name)

    def trusts(self, decision: ApprovalDecision) -> bool:
        """Return whether key and rules are still among those that count."""
        if self._keys is None:
            return True
        key, *rules = decision.credential_key.split(_BETWEEN)
        if rules:
            return bool(self._rules_of(decision)) and any(
                _is_same(key, self._digest(name)) for name in self._keys.trusted()
            )
        names = (
            *self._keys.trusted(),
            *(person.credential_key for person in self._people()),
        )
        return any(self._is_marked(decision, name) for name in names)

    def _rules_of(self, decision: ApprovalDecision) -> list[TokenIdentity]:
        """Return the rules in force by which the policy has known a token's bearer."""
        _, *marks = decision.credential_key.split(_BETWEEN)
        found = []
        for rule in self._token_identities() if marks else ():
            own = self._digest(rule.name)
            if any(_is_same(mark, own) for mark in marks):
                found.append(rule)
        return found

    def roles(self, decision: ApprovalDecision) -> frozenset[Role]:
        """
        Return the roles that a decision was made with and that its author still has.

        A token of a key of the server says itself what its roles are. Where a
        certificate or a token of another issuer said who it was, the policy in force
        says it.
        """
        held = frozenset(decision.roles)
        if _BETWEEN in decision.credential_key:
            given = (rule.roles for rule in self._rules_of(decision))
            return held & frozenset[Role]().union(*given)
        for person in self._people():
            if self._is_marked(decision, person.credential_key) or (
                not decision.credential_key
                and same_person(decision.principal, person.principal)
            ):
                return held & person.roles
        return held

    def _is_marked(self, decision: ApprovalDecision, name: str) -> bool:
        return _is_same(decision.credential_key, self._digest(name))


def _is_same(kept: str, other: str) -> bool:
    return hmac.compare_digest(kept.encode(), other.encode())


class ApprovalService:
    """
    Approval service: list, approve, deny, withdraw and cancel. Thread-safe.

    Args:
        register: The approvals.

        steps: Their journal.

        ring: Opens what is sealed in them.

        policy: Says who may approve.

        inventory: Knows what approvals are about.

        check_signature: Checks what approvers sign.

        credentials: Knows by which keys they were known.
    """

    def __init__(
        self,
        register: ApprovalRegister,
        steps: ApprovalJournal,
        ring: KeyRing,
        policy: PolicyHolder,
        inventory: KeyRepository,
        *,
        check_signature: SignatureCheck,
        credentials: CredentialCheck,
    ) -> None:
        self._register = register
        self._steps = steps
        self._ring = ring
        self._policy = policy
        self._inventory = inventory
        self._check_signature = check_signature
        self._credentials = credentials

    def get(self, caller: Caller, approval_id: str) -> ops.ApprovalInfo:
        """
        Return an approval, if the caller may see it.

        Raises:
            ApprovalNotFoundError: It does not exist, or the caller may not see it.
            HSMError: It can't be read or failed its integrity check.
        """
        return self.info(self._visible(caller, approval_id))

    def _visible(self, caller: Caller, approval_id: str) -> Approval:
        sees_all = self.may_approve(caller)
        try:
            approval = self._register.get(approval_id)
        except ApprovalTamperedError:
            if sees_all:
                raise
            raise ApprovalNotFoundError from None
        if not self._may_see(caller, approval, sees_all=sees_all):
            raise ApprovalNotFoundError
        return approval

    def _may_see(self, caller: Caller, approval: Approval, *, sees_all: bool) -> bool:
        if same_person(approval.requester, caller.principal):
            return True
        return sees_all and not self.is_kept_from(caller, approval)

    def is_kept_from(self, caller: Caller, approval: Approval) -> bool:
        """
        Return whether a rule hides the key of an approval from a caller.

        Callers without the right to describe keys may still approve; callers who are
        denied to describe this key may not.

        Raises:
            KeyTamperedError: The key's metadata failed its integrity check.
            StoreUnavailableError: Nobody can tell now.
        """
        if not approval.key_id:
            return False
        try:
            document = self._inventory.document(KeyId(approval.key_id))
        except KeyNotFoundError:
            return True
        decision = self._policy.engine.judge(
            ops.DescribeKey.__name__,
            caller,
            (key_facts(document),),
            self._register.time.now(),
        )
        return not decision.allowed and decision.rule != DEFAULT_DENY

    def decide(
        self,
        caller: Caller,
        operation: ops.Approve | ops.Deny,
        step: AuditDraft,
    ) -> ops.ApprovalInfo:
        """
        Record a decision on a request.

        Raises:
            ConflictError: The approval changed after it was shown, or is closed.
            AccessDeniedError: The caller may not decide.
            HSMError: Store or audit log can't be used.
        """
        approval = self._visible(caller, operation.approval_id)
        shown = approval.shown_sha256
        if operation.digest and not hmac.compare_digest(operation.digest, shown):
            raise ConflictError(
                "digest does not match this approval request.", field="digest"
            )
        granted = isinstance(operation, ops.Approve)
        signature, signer = self._signed(caller, approval, operation, granted=granted)
        said = {"comment" if granted else "reason": _said(operation)}
        told: Parameters = {name: text for name, text in said.items() if text}
        step = replace(step, parameters={**told, CONSENT_DIGEST: shown})
        if signature:
            step = replace(step, approval_signatures=(consent_text(signer, signature),))
        decided = self._register.decide(
            approval.approval_id,
            caller,
            granted=granted,
            credential_key=self._credentials.mark(caller),
            comment=_said(operation),
            signature=signature,
            signer=signer,
            generation=operation.generation,
            distinct_certificates=self._policy.engine.policy.distinct_certificates,
            step=step,
        )
        return self._answer(approval, decided, step)

    def withdraw(
        self, caller: Caller, operation: ops.Withdraw, step: AuditDraft
    ) -> ops.ApprovalInfo:
        """
        Withdraw a caller's approval.

        Raises:
            AccessDeniedError: The caller has not approved it.
            ConflictError: It is reserved or closed.
            HSMError: Store or audit log can't be used.
        """
        approval = self._visible(caller, operation.approval_id)
        if operation.reason:
            step = replace(step, parameters={"reason": operation.reason})
        distinct = self._policy.engine.policy.distinct_certificates
        withdrawn = self._register.change(
            approval.approval_id,
            lambda found, now: states.withdrawn(
                found, caller.principal, now, distinct_certificates=distinct
            ),
            step=step,
        )
        return self._answer(approval, withdrawn, step)

    def cancel(
        self, caller: Caller, approval_id: str, step: AuditDraft
    ) -> ops.ApprovalInfo:
        """
        Cancel a request of the caller.

        Raises:
            AccessDeniedError: The caller is not the requester.
            ConflictError: It is reserved or closed.
            HSMError: Store or audit log can't be used.
        """
        approval = self._visible(caller, approval_id)
        cancelled = self._register.change(
            approval_id,
            lambda found, now: states.cancelled(found, caller.principal, now),
            step=step,
        )
        return self._answer(approval, cancelled, step)

    def _answer(
        self, before: Approval, after: Approval, step: AuditDraft
    ) -> ops.ApprovalInfo:
        if after.generation == before.generation:
            # Said before: nothing has changed, but that it was said again is recorded.
            again = replace(
                step,
                phase=Phase.SINGLE,
                approval_id=after.approval_id,
                key_id=after.key_id,
                detail=MessageDetail(text="repeated decision"),
            )
            self._steps.record([again])
        return self.info(after)

    def _signed(
        self,
        caller: Caller,
        approval: Approval,
        operation: ops.Approve | ops.Deny,
        *,
        granted: bool,
    ) -> tuple[bytes, str]:
        """Return the verified signature and key of a decision; a denial needs none."""
        if operation.signature is None:
            if granted and any(demand.signed for demand in approval.demands):
                raise InvalidInputError(
                    "signature is required: sign the approval with your registered "
                    "key.",
                    field="signature",
                )
            return b"", ""
        text = consent.statement(
            approval.approval_id, approval.shown_sha256, granted=granted
        )
        signer = self._check_signature(
            caller.principal, text, operation.signature, operation.signer
        )
        return operation.signature, signer

    def is_signed(self, approval: Approval, decision: ApprovalDecision) -> bool:
        """Return whether the signature of a decision, if any, verifies now."""
        if not decision.signature:
            return True
        text = consent.statement(
            approval.approval_id, approval.shown_sha256, granted=decision.granted
        )
        try:
            self._check_signature(
                decision.principal, text, decision.signature, decision.signer
            )
        except (InvalidInputError, SignatureMismatchError):
            return False
        return True

    def is_vouched_for(self, decision: ApprovalDecision) -> bool:
        """Return whether the credential of a decision is still trusted."""
        return self._credentials.trusts(decision)

    def roles_now(self, decision: ApprovalDecision) -> frozenset[Role]:
        """Return the roles of a decision that its approver still has."""
        return self._credentials.roles(decision)

    def may_approve(self, caller: Caller) -> bool:
        """Return whether the policy allows a caller to approve."""
        at = self._register.time.now()
        kind = ops.Approve.__name__
        return self._policy.engine.judge(kind, caller, (), at).allowed

    def list(self, caller: Caller, query: ops.ListApprovals) -> ops.ApprovalPage:
        """
        Return a page of the approvals that the caller may see.

        Raises:
            InvalidInputError: The cursor is invalid.
            HSMError: They can't be read.
        """
        sees_all = self.may_approve(caller)
        requester = query.requester
        if not sees_all:
            if requester and not same_person(requester, caller.principal):
                return ops.ApprovalPage(items=())
            requester = caller.principal
        page = self._register.find(
            ApprovalQuery(
                states=frozenset(query.states),
                requester=requester,
                limit=query.per_page,
                after=_read_cursor(query.cursor) if query.cursor else None,
            )
        )
        wanted, unknown = [], []
        for approval in page.approvals:
            if query.kind not in {"", approval.kind}:
                continue
            if query.key_id not in {"", approval.key_id}:
                continue
            try:
                if self._may_see(caller, approval, sees_all=sees_all):
                    wanted.append(self.info(approval))
            except KeyTamperedError:
                unknown.append(approval.approval_id)
        after = page.after
        return ops.ApprovalPage(
            items=tuple(wanted),
            tampered=page.tampered if sees_all else (),
            key_tampered=tuple(unknown),
            next_cursor=f"{after[0]}.{after[1]}" if after else "",
        )

    def info(self, approval: Approval) -> ops.ApprovalInfo:
        """
        Return an approval as shown to approvers.

        Raises:
            ApprovalTamperedError: What is sealed in it can't be opened.
        """
        packed = self._ring.open_approval(
            approval.sealed, approval_id=approval.approval_id
        )
        short = states.missing(
            approval.demands,
            approval.decisions,
            distinct_certificates=self._policy.engine.policy.distinct_certificates,
        )
        return ops.ApprovalInfo(
            approval_id=approval.approval_id,
            state=approval.state,
            generation=approval.generation,
            operation=wire.decode_packed(packed, ShownOperation),
            salt=approval.salt,
            digest=approval.shown_sha256,
            demands=approval.demands,
            created_at=instant(approval.created_at),
            expires_at=instant(approval.expires_at),
            missing=short if approval.state is ApprovalState.PENDING else (),
            decisions=tuple(map(_decision_info, approval.decisions)),
            uses_left=approval.uses_left,
            policy=approval.policy,
            closed_at=instant(approval.closed_at) if approval.closed_at else None,
            operation_id=approval.operation_id,
        )


def _said(operation: ops.Approve | ops.Deny) -> str:
    return operation.comment if isinstance(operation, ops.Approve) else operation.reason


def _decision_info(decision: ApprovalDecision) -> ops.DecisionInfo:
    return ops.DecisionInfo(
        principal=decision.principal,
        granted=decision.granted,
        at=instant(decision.at),
        comment=decision.comment,
        roles=decision.roles,
        signed=bool(decision.signature),
        withdrawn=bool(decision.withdrawn_at),
    )


def _read_cursor(cursor: str) -> tuple[int, str]:
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidInputError(
            "cursor must be the next_cursor value of an earlier page.", field="cursor"
        )
    return int(found[1]), found[2]
