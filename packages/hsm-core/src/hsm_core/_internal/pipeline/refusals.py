# SPDX-License-Identifier: MIT
"""Audit records written outside operations: refusals, visits, tampering, start."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from msgspec.structs import replace

from hsm_core.__about__ import __version__
from hsm_core._internal.handlers.base import HandlerDependencies
from hsm_core._internal.keyring.documents import audited_caller
from hsm_core._internal.keyring.stored_keys import Finding
from hsm_core._internal.keyring.use_counters import Use
from hsm_core._internal.policy.facts import audited_certificate
from hsm_core.algorithms import Algorithm
from hsm_core.errors import HSMError, KeyTamperedError, SelfTestFailedError
from hsm_core.model import Caller, CountedDetail, KeyId, Phase
from hsm_core.protocols import AuditDraft, AuditLog, AuditTicket, Clock

COUNTED_SECONDS: Final = 60.0
"""Interval between two records of counted refusals, in seconds."""

_BURST: Final = 100
_PER_SECOND: Final = 5.0
_STRANGERS_PER_SECOND: Final = 1.0
_PER_ADDRESS: Final = 10
_MINUTE: Final = 60.0
_KEPT_CHARACTERS: Final = 64


class _Budget:
    """
    What may be recorded one by one.

    Args:
        per_second: How much comes back each second.

        monotonic: Time, in seconds.
    """

    def __init__(self, per_second: float, monotonic: Callable[[], float]) -> None:
        self._per_second = per_second
        self._monotonic = monotonic
        self._tokens = float(_BURST)
        self._refilled_at = monotonic()

    def take(self) -> bool:
        """Spend one record; return whether there was one."""
        now = self._monotonic()
        gained = max(0.0, (now - self._refilled_at) * self._per_second)
        self._tokens = min(float(_BURST), self._tokens + gained)
        self._refilled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class _Addresses:
    """
    How much each address has had recorded within this minute.

    It holds addresses alone that had something recorded, of which the budget of all
    strangers lets there be few.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._began_at = monotonic()
        self._recorded: Counter[str] = Counter()

    def is_spent(self, address: str) -> bool:
        """Return whether no more of an address is recorded by itself."""
        now = self._monotonic()
        if now - self._began_at >= _MINUTE:
            self._began_at = now
            self._recorded.clear()
        return self._recorded[address] >= _PER_ADDRESS

    def note(self, address: str) -> None:
        """Note that something of an address is recorded by itself."""
        self._recorded[address] += 1


class Refusals:
    """
    Records refusals within a budget: of callers 100 at once and 5 a second.

    Of strangers, 10 of each address in a minute are recorded, and of all of them 100
    at once and 1 a second. Nobody waits for these records.

    Args:
        audit: The trail.

        clock: Time.

        policy_hash: Tells the hash of the policy in force.
    """

    def __init__(
        self, audit: AuditLog, clock: Clock, policy_hash: Callable[[], str]
    ) -> None:
        self._audit = audit
        self._clock = clock
        self._policy_hash = policy_hash
        self._lock = threading.Lock()
        self._of_callers = _Budget(_PER_SECOND, clock.monotonic)
        self._of_strangers = _Budget(_STRANGERS_PER_SECOND, clock.monotonic)
        self._addresses = _Addresses(clock.monotonic)
        self._counted = 0
        self._counted_since = 0

    def record(
        self, caller: Caller, code: str, *, kind: str, key_id: str
    ) -> AuditTicket | None:
        """
        Record one refusal, or count it; see `HSMGateway.record_refusal`.

        Returns:
            What to wait for before the refusal is answered; None if there is nothing
            to wait for, or if the trail can't be written.
        """
        draft = self._draft(caller, code, kind, key_id)
        is_stranger = not caller.principal
        with self._lock:
            if not self._may_record(caller, is_stranger):
                self._count()
                return None
            ticket = self._append(draft, lazy=is_stranger)
            if ticket is None:
                self._count()
        return None if is_stranger else ticket

    def record_visit(self, caller: Caller, *, kind: str) -> AuditTicket | None:
        """
        Record that a caller came or went; see `HSMGateway.record_visit`.

        It has no budget: who can cause it is known, and may cause other records too.

        Returns:
            What to wait for; None if the trail can't be written.
        """
        return self._append(self._draft(caller, "ok", kind, ""))

    def flush(self) -> None:
        """Record the counts, periodically and before the audit log is closed."""
        with self._lock:
            if self._counted and self._append(self._count_draft(), lazy=True):
                self._counted = 0

    def _draft(self, caller: Caller, code: str, kind: str, key_id: str) -> AuditDraft:
        return AuditDraft(
            phase=Phase.SINGLE,
            kind=kind,
            code=code,
            request_id=caller.request_id,
            key_id=key_id[:_KEPT_CHARACTERS],
            caller=audited_caller(caller),
            parameters=audited_certificate(caller),
            policy=self._policy_hash(),
        )

    def _may_record(self, caller: Caller, is_stranger: bool) -> bool:
        if not is_stranger:
            return self._of_callers.take()
        address = caller.source_address
        if self._addresses.is_spent(address) or not self._of_strangers.take():
            return False
        self._addresses.note(address)
        return True

    def _count(self) -> None:
        if not self._counted:
            self._counted_since = self._clock.now()
        self._counted += 1

    def _count_draft(self) -> AuditDraft:
        detail = CountedDetail(count=self._counted, since=self._counted_since)
        return replace(
            AuditDraft.system("system.refusals", policy=self._policy_hash()),
            detail=detail,
        )

    def _append(self, draft: AuditDraft, *, lazy: bool = False) -> AuditTicket | None:
        try:
            return self._audit.append([draft], lazy=lazy)
        except HSMError:
            return None


class SystemRecorder:
    """
    Records what the HSM finds in keys.

    Args:
        audit: The audit log.

        policy_hash: Returns the hash of the policy in force.
    """

    def __init__(self, audit: AuditLog, policy_hash: Callable[[], str]) -> None:
        self._audit = audit
        self._policy_hash = policy_hash

    def tampered(self, key_id: KeyId, finding: Finding) -> None:
        """Record a tampered key; the finding stands whether that succeeds or not."""
        text = f"{finding.integrity}: {finding.problem}"
        code = KeyTamperedError.code
        self._try("system.tampered", text, code=code, key_id=key_id)

    def corrected(self, key_id: KeyId) -> None:
        """Record that an index entry of a key contradicted its document."""
        self._try("system.index-corrected", key_id=key_id)

    def near_limit(self, use: Use, uses: int, limit: int) -> None:
        """
        Record that a key's material has little use left, before that use.

        Raises:
            AuditUnavailableError: It can't be written.
        """
        draft = AuditDraft.system(
            "system.use-limit-near",
            f"{uses} of {limit} uses",
            key_id=use.key.key_id,
            version=use.version.version,
            policy=self._policy_hash(),
        )
        self._audit.append([draft])

    def trust_changed(self, text: str) -> None:
        """
        Record what this node has withdrawn from all nodes, or restored.

        Raises:
            AuditUnavailableError: It can't be written.
        """
        draft = AuditDraft.system(
            "system.trust-changed", text, policy=self._policy_hash()
        )
        self._audit.append([draft], durable=True, reserved=True).wait()

    def _try(self, kind: str, text: str = "", **facts: Any) -> None:
        draft = AuditDraft.system(kind, text, policy=self._policy_hash(), **facts)
        with suppress(HSMError):
            self._audit.append([draft], reserved=True)


def record_system(services: HandlerDependencies, kind: str) -> None:
    """Record a start or a stop, with the digest over all keys."""
    draft = AuditDraft.system(
        kind,
        f"hsm-core {__version__}",
        policy=services.policy.policy_hash(),
        set_digest=services.inventory.set_digest,
    )
    services.audit.append([draft], durable=True, reserved=True).wait()


def record_stopped(
    services: HandlerDependencies, algorithms: Sequence[Algorithm]
) -> None:
    """
    Record algorithms whose self-test failed.

    Raises:
        AuditUnavailableError: It can't be written.
    """
    policy, code = services.policy.policy_hash(), SelfTestFailedError.code
    drafts = [
        AuditDraft.system("system.self-test", algorithm, code=code, policy=policy)
        for algorithm in algorithms
    ]
    services.audit.append(drafts, durable=True, reserved=True).wait()
