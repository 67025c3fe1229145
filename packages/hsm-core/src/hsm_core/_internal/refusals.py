# SPDX-License-Identifier: MIT
"""
Records that no operation makes: refusals before there was one, visits, and tampering.

Anybody who reaches the network can cause refusals, so they have a budget: above it they
are counted, and the count is one record.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from hsm_core._internal.shown_certificates import audited_certificate
from hsm_core._internal.tampering import Finding
from hsm_core._internal.uses import Use
from hsm_core._internal.views import audited_caller
from hsm_core.errors import HSMError, KeyTamperedError
from hsm_core.model import (
    Caller,
    CountedDetail,
    KeyId,
    MessageDetail,
    Phase,
)
from hsm_core.protocols import AuditDraft, AuditLog, AuditTicket, Clock

__all__ = ["NearLimitRecorder", "Refusals", "TamperingRecorder"]

_BURST: Final = 100
_PER_SECOND: Final = 5.0
_KEPT_CHARACTERS: Final = 64


class Refusals:
    """
    Records refusals within a budget of 100 at once and 5 a second.

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
        self._tokens = float(_BURST)
        self._refilled_at = clock.monotonic()
        self._counted = 0
        self._counted_since = 0

    def record(
        self, caller: Caller, code: str, *, kind: str, key_id: str
    ) -> AuditTicket | None:
        """
        Record one refusal, or count it; see `HSMGateway.record_refusal`.

        Returns:
            What to wait for before the refusal is answered; None if it was counted, or
            if the trail can't be written.
        """
        drafts = [self._draft(caller, code, kind, key_id)]
        with self._lock:
            if not self._take():
                self._count()
                return None
            if self._counted:
                drafts.insert(0, self._count_draft())
            ticket = self._append(drafts)
            if ticket is not None:
                self._counted = 0
            return ticket

    def record_visit(self, caller: Caller, *, kind: str) -> AuditTicket | None:
        """
        Record that a caller came or went; see `HSMGateway.record_visit`.

        It has no budget: who can cause it is known, and may cause other records too.

        Returns:
            What to wait for; None if the trail can't be written.
        """
        return self._append([self._draft(caller, "ok", kind, "")])

    def flush(self) -> None:
        """Record what was counted, before the trail is closed."""
        with self._lock:
            if self._counted and self._append([self._count_draft()]):
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

    def _take(self) -> bool:
        now = self._clock.monotonic()
        gained = (now - self._refilled_at) * _PER_SECOND
        self._tokens = min(float(_BURST), self._tokens + max(0.0, gained))
        self._refilled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _count(self) -> None:
        if not self._counted:
            self._counted_since = self._clock.now()
        self._counted += 1

    def _count_draft(self) -> AuditDraft:
        detail = CountedDetail(count=self._counted, since=self._counted_since)
        return AuditDraft(
            phase=Phase.SINGLE,
            kind="system.refusals",
            policy=self._policy_hash(),
            detail=detail,
        )

    def _append(self, drafts: list[AuditDraft]) -> AuditTicket | None:
        try:
            return self._audit.append(drafts)
        except HSMError:
            return None


class TamperingRecorder:
    """
    Records that a key was found tampered with, once for each.

    Args:
        audit: The trail.

        policy_hash: Tells the hash of the policy in force.
    """

    def __init__(self, audit: AuditLog, policy_hash: Callable[[], str]) -> None:
        self._audit = audit
        self._policy_hash = policy_hash

    def __call__(self, key_id: KeyId, finding: Finding) -> None:
        """Append the record; the finding stands whether that succeeds or not."""
        self._append(
            "system.tampered",
            KeyTamperedError.code,
            key_id,
            f"{finding.integrity}: {finding.problem}",
        )

    def correct(self, key_id: KeyId) -> None:
        """Record that the index told something of a key that its document does not."""
        self._append("system.index-corrected", "ok", key_id, "")

    def _append(self, kind: str, code: str, key_id: KeyId, text: str) -> None:
        draft = AuditDraft(
            phase=Phase.SINGLE,
            kind=kind,
            code=code,
            key_id=key_id,
            policy=self._policy_hash(),
            detail=MessageDetail(text=text) if text else None,
        )
        with suppress(HSMError):
            self._audit.append([draft], reserved=True)


class NearLimitRecorder:
    """
    Puts on record that a key's material has little use left.

    Args:
        audit: The trail.

        policy_hash: Tells the hash of the policy in force.
    """

    def __init__(self, audit: AuditLog, policy_hash: Callable[[], str]) -> None:
        self._audit = audit
        self._policy_hash = policy_hash

    def __call__(self, use: Use, uses: int, limit: int) -> None:
        """
        Append the record, before the use that comes near.

        Raises:
            AuditUnavailableError: It can't be written.
        """
        draft = AuditDraft(
            phase=Phase.SINGLE,
            kind="system.use-limit-near",
            key_id=use.key.key_id,
            version=use.version.version,
            policy=self._policy_hash(),
            detail=MessageDetail(text=f"{uses} of {limit} uses"),
        )
        self._audit.append([draft])
