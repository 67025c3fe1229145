# SPDX-License-Identifier: MIT
"""The fakes that are shipped for tests of other programs fail as real parts do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hsm_core._internal.stores.memory.audit import MemoryAuditLog
from hsm_core._internal.stores.memory.records import MemoryKeyStore
from hsm_core.errors import (
    AuditUnavailableError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from hsm_core.model import Phase
from hsm_core.protocols import AuditDraft, KeyStore
from hsm_core.testing import (
    FakeClock,
    FakeEntropy,
    Faults,
    faulty_audit_log,
    faulty_key_store,
)
from tests.core.key_support import change_of, document_of, key_id_of, operation_of, page

DRAFT = AuditDraft(phase=Phase.SINGLE, kind="system.start")


@pytest.mark.parametrize("made", [False, True])
def test_unknown_commit(*, made: bool) -> None:
    """
    A commit of unknown outcome is made or not, and closes the store until reopened.
    """
    faults = Faults()
    store: KeyStore = faulty_key_store(MemoryKeyStore(), faults)
    faults.plan_unknown_commit(made=made)
    change = change_of(
        document_of(1, operations=(operation_of(1),)), operation_of(1), blobs={1: b"x"}
    )
    with pytest.raises(OutcomeUnknownError) as caught:
        store.commit(change)
    before = store.available
    calls: list[Callable[[], object]] = [
        lambda: store.get(key_id_of(1)),
        lambda: store.entry(key_id_of(1)),
        lambda: list(store.scan()),
        lambda: store.commit(change),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailableError):
            call()

    store.reopen()

    assert {"operation_id": operation_of(1)} == caught.value.facts
    assert [False, True] == [before, store.available]
    assert made == (store.find_operation(operation_of(1)) is not None)
    assert ([key_id_of(1)] if made else []) == page(store)


def test_reopening_that_fails() -> None:
    """
    A reopening that fails leaves the store unavailable, until one succeeds.
    """
    faults = Faults()
    store: KeyStore = faulty_key_store(MemoryKeyStore(), faults)
    faults.plan_unknown_commit(made=False)
    with pytest.raises(OutcomeUnknownError):
        store.commit(change_of(document_of(1), operation_of(1)))
    faults.plan("store.reopen", StoreUnavailableError())

    with pytest.raises(StoreUnavailableError):
        store.reopen()
    before = store.available
    store.reopen()

    assert [False, True] == [before, store.available]


def test_failing_trail() -> None:
    """
    A trail that fails takes nothing and says why, until it is healed.
    """
    faults = Faults()
    log = MemoryAuditLog(bytes(32), clock=FakeClock(), entropy=FakeEntropy())
    trail = faulty_audit_log(log, faults)
    faults.fail_trail("full")
    failing = trail.health, trail.available
    with pytest.raises(AuditUnavailableError):
        trail.append([DRAFT])

    faults.heal_trail()
    faults.heal_trail()
    trail.append([DRAFT]).wait()

    assert ("failing", "full", 1) == (
        failing[0].state,
        failing[0].cause,
        failing[0].failures,
    )
    assert ("ok", "", 1) == (
        trail.health.state,
        trail.health.cause,
        trail.health.resumes,
    )
    assert [False, True] == [failing[1], trail.available]
