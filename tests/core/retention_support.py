# SPDX-License-Identifier: MIT
"""What the tests of retention share: an HSM with a clock, and people who consent."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hsm_core import wire
from hsm_core._internal.assembly.assembly import Parts, assemble, open_ring
from hsm_core._internal.assembly.opened import OpenHSM
from hsm_core._internal.audit.record import event_of
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.keyring.key_ring import RootKey
from hsm_core._internal.lib.concurrency import BackgroundWorker
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._internal.pipeline.authorisation import Admission, ApprovalDesk
from hsm_core._internal.retention.service import LedgerFile, Retention
from hsm_core._internal.stores.audit import open_audit_log, open_ledger
from hsm_core._internal.stores.locations import open_approval_store, open_key_store
from hsm_core.errors import (
    ApprovalNotFoundError,
    ApprovalRequiredError,
    AuditTamperedError,
    UnavailableError,
)
from hsm_core.model import (
    Approval,
    ApprovalDecision,
    ApprovalDemand,
    ApprovalState,
    AuditEvent,
    Caller,
    KeyState,
    Role,
)
from hsm_core.operations import Approve, ListApprovals, Operation
from hsm_core.protocols import AuditLog, Clock
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


@pytest.fixture(autouse=True)
def keep_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pipeline be as it was after a test whose people it has asked."""
    for name in ("check_approvals", "take_approval"):
        monkeypatch.setattr(Admission, name, getattr(Admission, name))


class People(ApprovalDesk):
    """
    An approval desk that a test plays the people of.

    Args:
        clock: Time.

        demands: Whether the policy demands approvals at all.

        spends: Whether what was granted is good for one use only.

    Attributes:
        made: All approvals, oldest first.
        asked: What each is about, by its id.
        keys: Who asked each for what, by its id.
    """

    def __init__(
        self, clock: Clock, *, demands: bool = True, spends: bool = True
    ) -> None:
        self.clock = clock
        self.spends = spends
        self.demands = demands
        self.made: list[Approval] = []
        self.asked: dict[str, Any] = {}
        self.keys: dict[str, tuple[str, bytes]] = {}

    def find(self, caller: Caller, operation: Operation[Any]) -> Approval | None:
        """Return the open approval for an operation."""
        wanted = (caller.principal, wire.encode_packed(operation))
        self._expire()
        for found in self.made:
            if self.keys[found.approval_id] == wanted and not found.closed_at:
                return found
        return None

    def state_of(self, approval_id: str) -> Approval:
        """Return an approval."""
        self._expire()
        for found in self.made:
            if found.approval_id == approval_id:
                return found
        raise ApprovalNotFoundError

    def request(
        self,
        caller: Caller,
        operation: Operation[Any],
        *,
        minimum_seconds: int = 0,
    ) -> Approval | None:
        """Make an approval, unless there is an open one."""
        if not self.demands:
            return None
        found = self.find(caller, operation)
        if found is not None:
            return found
        now = self.clock.now()
        made = Approval(
            approval_id=str(uuid.uuid4()),
            generation=1,
            state=ApprovalState.PENDING,
            kind=type(operation).__name__,
            digest="",
            requester=caller.principal,
            key_id=getattr(operation, "key_id", ""),
            demands=(ApprovalDemand(rule="retention-purge", quorum=2),),
            created_at=now,
            expires_at=now + max(3600, minimum_seconds) * 1_000_000,
        )
        packed = wire.encode_packed(operation)
        self.asked[made.approval_id] = operation
        self.keys[made.approval_id] = (caller.principal, packed)
        self.made.append(made)
        return made

    def _expire(self) -> None:
        now = self.clock.now()
        for found in self.made:
            if not found.closed_at and now >= found.expires_at:
                state = ApprovalState.EXPIRED
                self._put(found, state=state, closed_at=found.expires_at)

    def _put(self, found: Approval, **changes: Any) -> None:
        after = msgspec.structs.replace(found, **changes)
        place = next(
            n for n, a in enumerate(self.made) if a.approval_id == found.approval_id
        )
        self.made[place] = after

    def versions(self) -> list[tuple[int, ...]]:
        """Return the versions that each approval is about."""
        return [self.asked[a.approval_id].versions for a in self.made]

    def waiting(self, kind: str = "") -> list[Approval]:
        """Return the approvals that people are asked for."""
        self._expire()
        pending = (a for a in self.made if a.state is ApprovalState.PENDING)
        return [a for a in pending if kind in ("", a.kind)]

    def grant(self, *approvals: Approval) -> None:
        """Let an Operator and an Auditor consent; without a name, to all that wait."""
        for found in approvals or tuple(self.waiting()):
            now = self.clock.now()
            said = tuple(
                ApprovalDecision(principal=name, granted=True, at=now)
                for name in ("olga", "anton")
            )
            self._put(found, state=ApprovalState.GRANTED, decisions=said)

    def end(self, approval: Approval, state: ApprovalState) -> None:
        """Let an approval be denied, cancelled or consumed."""
        self._put(approval, state=state, closed_at=self.clock.now())

    def spend(self, attempt: RequestContext[Any]) -> None:
        """
        Consume the consent to an operation, as the pipeline does before it acts.

        Raises:
            ApprovalRequiredError: There is none.
        """
        if attempt.decision is None or not attempt.decision.approvals:
            return
        found = self.find(attempt.caller, attempt.operation)
        if found is None or found.state is not ApprovalState.GRANTED:
            raise ApprovalRequiredError
        if self.spends:
            self.end(found, ApprovalState.CONSUMED)


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

        asks_people: Whether real approvals are asked for, and not *people*.

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
        people: People | None = None,
        asks_people: bool = False,
        is_idle: bool = False,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self._new_caretaker = IdleCaretaker if is_idle else BackgroundWorker
        self.clock = clock or FakeClock()
        self.people = people or People(self.clock)
        self._has_desk = asks_people
        # The pipeline asks these people, and not those of another test.
        self.spend: Callable[[RequestContext[Any]], None] = self.people.spend
        outer = self
        if not asks_people:
            Admission.check_approvals = (  # type: ignore[method-assign]
                lambda self, context: None
            )
            Admission.take_approval = (  # type: ignore[method-assign]
                lambda self, context: outer.spend(context)
            )
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
            desk=None if self._has_desk else self.people,
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
        self.people.grant()
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

    def consent(self) -> None:
        """Let an Operator and an Auditor consent to all that is asked for."""
        for name, role in (("olga", Role.OPERATOR), ("anton", Role.AUDITOR)):
            who = Caller(principal=name, roles=frozenset({role}))
            hsm = self.hsm.act_as(who)
            page = hsm.execute(ListApprovals(states=(ApprovalState.PENDING,)))
            for found in page.items:
                hsm.execute(Approve(approval_id=found.approval_id, digest=found.digest))

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
