# SPDX-License-Identifier: MIT
"""What the tests of retention share: an HSM with a clock, and people who consent."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hsm_core._internal.assembly.assembly import Parts, assemble, open_ring
from hsm_core._internal.assembly.opened import OpenHSM
from hsm_core._internal.audit.record import event_of
from hsm_core._internal.keyring.key_ring import RootKey
from hsm_core._internal.lib.concurrency import BackgroundWorker
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._internal.retention.service import LedgerFile, Retention
from hsm_core._internal.stores.audit import open_audit_log, open_ledger
from hsm_core._internal.stores.locations import open_approval_store, open_key_store
from hsm_core.errors import AuditTamperedError, UnavailableError
from hsm_core.model import ApprovalState, AuditEvent, KeyState, Role
from hsm_core.operations import ApprovalInfo
from hsm_core.protocols import AuditLog
from hsm_core.session import Session
from hsm_core.settings import ApprovalStoreKind, KeyStoreKind, Settings
from hsm_core.testing import (
    FakeClock,
    Faults,
    caller,
    faulty_audit_log,
    faulty_key_store,
)
from tests.self_tests import shared_registry

DAY = 86_400
HMAC_KEY = b"\x02" * 32
POLICY = b"default_days: 30\n"
_ROOT = b"\x01" * 32


class IdleCaretaker(BackgroundWorker):
    """Does nothing of what it is given."""

    def start(self) -> None:
        """Begin nothing."""


class World:
    """
    An HSM with retention.

    Args:
        folder: For policy and ledger, and for the keys unless they are in *memory*.

        policy: What the policy's file holds; None for no file.

        is_idle: Whether nothing is done in the background: a sweep that was begun there
            is one that the next call of `sweep` merely ends.

        settings: Further settings.
    """

    def __init__(
        self,
        folder: Path,
        *,
        policy: bytes | None = POLICY,
        memory: bool = True,
        clock: FakeClock | None = None,
        is_idle: bool = False,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self._new_caretaker = IdleCaretaker if is_idle else BackgroundWorker
        self.clock = clock or FakeClock()
        self.policy_path = folder / "retention.yaml"
        if policy is not None:
            self.policy_path.write_bytes(policy)
        self.faults = Faults()
        self.ledger_faults = Faults()
        kind = ApprovalStoreKind.MEMORY if memory else ApprovalStoreKind.FILE
        self.settings = Settings(
            key_store=KeyStoreKind.MEMORY if memory else KeyStoreKind.FILESYSTEM,
            key_dir=folder / "keys",
            audit_log=None if memory else folder / "audit.log",
            approval_store=kind,
            approval_dir=folder / "approvals",
            retention_config=self.policy_path,
            retention_ledger=folder / "ledger.log",
            **settings,
        )
        self.hsm = self.open()

    def open(self) -> OpenHSM:
        """Open it, over what was there before, unless that was in memory."""
        entropy = SystemEntropy()
        root = RootKey(_ROOT, entropy=entropy)
        opened = open_key_store(self.settings, self.clock, entropy)
        ring = open_ring(opened.keys, root)
        known = ring.log_id if ring else None
        trail = open_audit_log(
            self.settings, HMAC_KEY, self.clock, entropy, known_id=known
        )
        try:
            log = open_ledger(self.settings, HMAC_KEY, self.clock, entropy)
            ledger = LedgerFile(
                faulty_audit_log(log, self.ledger_faults) if log else None
            )
        except AuditTamperedError as error:
            seq = error.facts.get("seq", 0)
            told = f"The retention ledger is damaged at record {seq}."
            ledger = LedgerFile(None, told)
        self.ledger_log = ledger.log
        parts = Parts(
            store=faulty_key_store(opened.keys, self.faults),
            counters=opened.uses,
            audit=faulty_audit_log(trail, self.faults),
            ring=ring,
            root=root,
            hmac_key=HMAC_KEY,
            clock=self.clock,
            entropy=entropy,
            registry=shared_registry(),
            purges=ledger,
            approvals=open_approval_store(self.settings),
            new_worker=self._new_caretaker,
        )
        self.hsm = assemble(self.settings, parts)
        self.session = Session(self.hsm.act_as(caller(*Role)))
        self.adopt()
        return self.hsm

    def adopt(self) -> None:
        """Let the policy's file be looked at until what it holds is believed."""
        self.sweep()
        self.clock.advance(3)

    @property
    def retention(self) -> Retention:
        """What sweeps."""
        found = self.hsm.retention
        assert found is not None
        return found

    def sweep(self) -> None:
        """Make a whole sweep."""
        if self.hsm.retention is not None:
            self.hsm.retention.sweep()

    def pass_time(self, days: float, *, every: float = 1.0) -> None:
        """Let time pass, with a sweep *every* so many days."""
        left = days
        while left > 0:
            self.clock.advance(min(every, left) * DAY)
            left -= every
            self.sweep()

    def schedule(self) -> None:
        """Let the purge of every old version be due, granted and scheduled."""
        self.pass_time(31, every=15.5)
        self.consent()
        self.sweep()

    def ripen(self) -> None:
        """Let the next sweep purge every old version."""
        self.schedule()
        self.clock.advance(1.5 * DAY)

    def old_key(self, versions: int = 2, **facts: Any) -> str:
        """Make a key and rotate it, so that all but its last version are retired."""
        key = self.session.create_key("AES-256-GCM", **facts)
        for _ in range(versions - 1):
            self.session.rotate(key.key_id)
        return key.key_id

    def states(self, key_id: str) -> list[KeyState]:
        """Return the states of all versions of a key."""
        return [version.state for version in self.session.versions(key_id)]

    def states_or_none(self, key_id: str) -> list[KeyState] | None:
        """Return the states of all versions of a key; None if nobody can tell."""
        try:
            return self.states(key_id)
        except UnavailableError:
            return None

    def asked(self, kind: str = "", *states: ApprovalState) -> list[ApprovalInfo]:
        """Return the approval requests of a kind, in these states, oldest first."""
        auditor = Session(self.hsm.act_as(caller(Role.AUDITOR)))
        return [*auditor.approvals(states=states, kind=kind)][::-1]

    def waiting(self, kind: str = "") -> list[ApprovalInfo]:
        """Return the approval requests that wait for people."""
        return self.asked(kind, ApprovalState.PENDING)

    def consent(self, kind: str = "") -> None:
        """Let an Operator and an Auditor consent to all that waits."""
        for name, role in (("olga", Role.OPERATOR), ("anton", Role.AUDITOR)):
            session = Session(self.hsm.act_as(caller(role, principal=name)))
            for found in self.waiting(kind):
                session.approve(found.approval_id, digest=found.digest)

    def attested(self) -> list[AuditEvent]:
        """Return what the ledger says of purges."""
        assert self.ledger_log is not None
        return [e for e in events_of(self.ledger_log) if e.kind == "purge"]

    def close(self) -> None:
        """Close it."""
        self.hsm.close()


def events_of(log: AuditLog) -> Iterable[AuditEvent]:
    """Return all events of a log."""
    for seq, line in enumerate(log.lines(0, 1_000_000)):
        yield event_of(line, seq)
