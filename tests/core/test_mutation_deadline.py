# SPDX-License-Identifier: MIT
"""A change waits for the trail once: all its records share the time of one answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hsm_core import errors
from hsm_core._internal.audit.medium import Ticket
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.memory.audit import MemoryAuditLog
from hsm_core.factory import open_hsm
from hsm_core.protocols import AuditDrafts, AuditTicket
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import Faults
from tests.core.audit_faults import until
from tests.core.hsm_support import memory_session, session_of

LIMIT, INTENT_SECONDS = 2.0, 0.5


class SlowTrail:
    """
    A disk whose syncs are slow once the test says so.

    Attributes:
        is_slow: The record of an intent takes its time, and that of an outcome hangs.
        release: Lets what hangs go on.
        limits: How long this thread waits for each record at most, in seconds.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_slow, self.release = threading.Event(), threading.Event()
        self._is_stored = threading.Event()
        self.limits: list[float | None] = []
        whole, mine = Ticket.wait, threading.current_thread()

        def wait(ticket: Ticket, timeout: float | None = None) -> None:
            if self.is_slow.is_set() and threading.current_thread() is mine:
                self.limits.append(timeout)
            whole(ticket, timeout)

        monkeypatch.setattr(Ticket, "wait", wait)

    def reach(self, name: str) -> None:
        """Handle a failpoint."""
        if not self.is_slow.is_set():
            return
        if name == "mutation.after_store":
            self._is_stored.set()
        elif name == "audit.before_sync":
            if self._is_stored.is_set():
                self.release.wait(60)
            else:
                time.sleep(INTENT_SECONDS)


@contextmanager
def slow_trail(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Session, SlowTrail]]:
    """Give a session on such a disk."""
    slow = SlowTrail(monkeypatch)
    settings = Settings(
        key_dir=folder / "keys",
        audit_log=folder / "log" / "audit.log",
        audit_timeout_seconds=LIMIT,
    )
    with (
        open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32)) as gateway,
        install(slow.reach),
    ):
        try:
            yield session_of(gateway), slow
        finally:
            slow.release.set()


def phases(session: Session, operation_id: object) -> list[tuple[str, str]]:
    """Return what the trail says of one operation, oldest first."""
    found = [entry.event for entry in session.audit_events(limit=100)]
    return [
        (event.phase, event.code)
        for event in reversed(found)
        if event.operation_id == operation_id
    ]


@pytest.mark.parametrize("change", ["create", "rotate", "destroy"])
def test_a_change_waits_no_longer_than_one_answer_may(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the record of the intent took, that of the outcome does not get."""
    with slow_trail(tmp_path, monkeypatch) as (session, slow):
        key = session.create_key("AES-256-GCM").key_id
        changes: dict[str, Callable[[], object]] = {
            "create": lambda: session.create_key("AES-256-GCM", name="k"),
            "rotate": lambda: session.rotate(key),
            "destroy": lambda: session.destroy(key),
        }
        slow.is_slow.set()
        began = time.monotonic()
        with pytest.raises(errors.OutcomeUnknownError) as refused:
            changes[change]()
        took = time.monotonic() - began
        slow.release.set()
        until(lambda: session.status().audit.state == "ok")

        intent, outcome = slow.limits
        assert LIMIT == intent
        assert outcome is not None
        assert outcome < LIMIT
        assert took > LIMIT * 0.9
        operation_id = refused.value.facts["operation_id"]
        until(lambda: len(phases(session, operation_id)) > 1)
        assert [("intent", "ok"), ("outcome", "ok")] == phases(session, operation_id)


class SlowTicket:
    """The ticket of a record that takes its time."""

    def __init__(self) -> None:
        self.waiting, self.release = threading.Event(), threading.Event()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the test lets go."""
        self.waiting.set()
        self.release.wait(timeout)

    def add_done_callback(self, _callback: object, /) -> None:
        """Call nothing."""


def test_changes_that_the_store_refuses_wait_beside_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who waits for the record of a refusal holds up nobody else's change."""
    faults, slow = Faults(), SlowTicket()
    whole = MemoryAuditLog.append

    def append(
        log: MemoryAuditLog, drafts: AuditDrafts, /, **given: bool
    ) -> AuditTicket:
        drafts = drafts() if callable(drafts) else drafts
        ticket = whole(log, drafts, **given)
        return slow if drafts[0].code == errors.StorageFullError.code else ticket

    monkeypatch.setattr(MemoryAuditLog, "append", append)
    with memory_session(faults=faults) as session:
        faults.plan("store.commit", errors.StorageFullError())
        refused: list[errors.HSMError] = []

        def create() -> None:
            try:
                session.create_key("ed25519")
            except errors.HSMError as error:
                refused.append(error)

        first = threading.Thread(target=create)
        first.start()
        assert slow.waiting.wait(60)
        other = threading.Thread(target=create)
        other.start()
        other.join(60)
        is_done = not other.is_alive()
        slow.release.set()
        first.join()
        other.join()
    assert is_done
    assert [errors.StorageFullError] == [type(error) for error in refused]


def test_the_outcome_of_a_refused_change_is_owed() -> None:
    """What the store refused and the trail could not take is recorded when it can."""
    faults = Faults()
    with memory_session(faults=faults) as session:
        faults.plan("store.commit", errors.StorageFullError())
        faults.plan("audit.append.outcome", errors.AuditUnavailableError())
        with pytest.raises(errors.OutcomeUnknownError) as refused:
            session.create_key("ed25519")
        session.create_key("ed25519")

        operation_id = refused.value.facts["operation_id"]
        assert [("intent", "ok"), ("outcome", errors.StorageFullError.code)] == phases(
            session, operation_id
        )
