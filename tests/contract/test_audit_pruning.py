"""What every `AuditLog` promises of pruning, run over every implementation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hsm_core._internal.audit.baseline import ACCEPTED
from hsm_core._internal.audit.merkle import CompactRange
from hsm_core._internal.audit.reading import lines_from
from hsm_core._internal.audit.record import event_of, leaf_hash
from hsm_core._internal.audit.verify import verify_range
from hsm_core.errors import AuditUnavailableError, InvalidInputError
from hsm_core.factory import open_verifier
from hsm_core.model import KeyId, Phase, PruneDetail
from hsm_core.protocols import AuditDraft, AuditLog, KnownKey
from hsm_core.testing import FakeClock
from tests.contract.audit_rows import open_empty
from tests.core.audit_support import KEY

DAY = 24 * 3600


@pytest.fixture(params=["memory", "segmented", "sqlite", "postgresql"])
def make(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock
) -> Iterator[Callable[[], AuditLog]]:
    """Give what opens the log of one implementation, closed in the end."""
    opened: list[AuditLog] = []

    def build() -> AuditLog:
        opened.append(open_empty(request.param, request, tmp_path, clock))
        return opened[-1]

    yield build
    for log in opened:
        log.close()


@pytest.fixture
def log(make: Callable[[], AuditLog]) -> AuditLog:
    """Give an open log."""
    return make()


def _draft(number: int, **fields: object) -> AuditDraft:
    given = {"phase": Phase.SINGLE, "kind": "Sign", "request_id": f"r-{number}"}
    return AuditDraft(**(given | fields))  # type: ignore[arg-type]


def _outcome(number: int, key_id: str, digest: str, **fields: object) -> AuditDraft:
    given = {
        "phase": Phase.OUTCOME,
        "kind": "CreateKey",
        "operation_id": f"o-{number}",
        "key_id": key_id,
        "generation": number + 1,
        "document_after": digest,
    }
    return AuditDraft(**(given | fields))  # type: ignore[arg-type]


def _days(log: AuditLog, clock: FakeClock, count: int, per_day: int = 10) -> None:
    for day in range(count):
        clock.advance(DAY)
        for number in range(int(log.head().seq < 0), per_day):
            log.append([_draft(day * per_day + number)]).wait()


def _ago(clock: FakeClock, days: int) -> int:
    return clock.now() - days * DAY * 1_000_000


def _pruned(log: AuditLog, clock: FakeClock, days: int) -> PruneDetail:
    detail = log.prune(log.prunable(_ago(clock, days)), f"{days} days")
    assert detail is not None
    return detail


def test_a_new_log_begins_at_its_first_record(log: AuditLog, clock: FakeClock) -> None:
    """Nothing was pruned, nothing is kept, and nothing can be pruned."""
    assert 0 == log.first_seq
    assert [] == list(log.baseline())
    assert 0 == log.prunable(_ago(clock, -1000))
    assert log.prune(0, "none") is None
    assert -1 == log.head().seq


def test_old_records_go_and_a_record_says_so(log: AuditLog, clock: FakeClock) -> None:
    """What is older than the limit is removed; the rest stays and verifies."""
    _days(log, clock, 20)
    before = log.lines(0, 1000)
    limit = log.prunable(_ago(clock, 5))
    detail = log.prune(limit, "5 days")
    first, head = log.first_seq, log.head().seq

    assert detail is not None
    assert 140 == limit
    assert 100 < first <= limit
    assert (0, first) == (detail.first_seq, detail.next_seq)
    assert leaf_hash(before[first - 1]) == detail.last_leaf_hash
    assert "5 days" == detail.policy
    assert 200 == head
    event = event_of(log.lines(head, 1)[0], head)
    assert ("system.prune", detail) == (event.kind, event.detail)
    assert before[first:] == log.lines(first, 200 - first)
    found = verify_range(log, KEY, 0, 10_000)
    assert (first, 201 - first) == (found.start_seq, found.verified)


def test_records_that_are_gone_can_not_be_read(log: AuditLog, clock: FakeClock) -> None:
    """Reading before the oldest record names the field and the limit."""
    _days(log, clock, 20)
    _pruned(log, clock, 5)

    with pytest.raises(InvalidInputError) as caught:
        log.lines(log.first_seq - 1, 5)
    assert caught.value.facts == {"field": "start_seq", "limit": log.first_seq}
    assert log.first_seq == lines_from(log, 3, 1)[0]


def test_the_roots_are_those_of_a_trail_that_was_never_pruned(
    log: AuditLog, clock: FakeClock
) -> None:
    """Over many prunes the subtree roots stay those of all records from the first."""
    lines: list[bytes] = []
    tree, reached = CompactRange(), 0
    for _ in range(4):
        _days(log, clock, 8)
        lines += log.lines(len(lines), 1000)
        detail = _pruned(log, clock, 3)
        for line in lines[reached : detail.next_seq]:
            tree.append(leaf_hash(line))
        assert tree.roots == detail.roots
        assert reached == detail.first_seq
        reached = detail.next_seq
        assert reached == log.first_seq


def test_what_the_removed_records_said_of_keys_is_kept(
    log: AuditLog, clock: FakeClock
) -> None:
    """The last committed state of each key outlives its records, over two prunes."""
    log.append(
        [
            _outcome(0, "k1", "d1"),
            _outcome(1, "k2", "d2"),
            _outcome(2, "k2", "d3", code="recovered-committed"),
            _outcome(3, "k3", "d4", code="recovered-aborted"),
            _outcome(4, "k4", "d5"),
            _draft(5, kind=ACCEPTED, key_id="k4"),
        ]
    ).wait()
    _days(log, clock, 12)
    _pruned(log, clock, 5)
    first = list(log.baseline())
    log.append([_outcome(6, "k1", "d6"), _outcome(7, "k5", "d7")]).wait()
    _days(log, clock, 12)
    _pruned(log, clock, 5)

    assert first == [KnownKey(KeyId("k1"), 1, "d1"), KnownKey(KeyId("k2"), 3, "d3")]
    assert list(log.baseline()) == [
        KnownKey(KeyId("k1"), 7, "d6"),
        KnownKey(KeyId("k2"), 3, "d3"),
        KnownKey(KeyId("k5"), 8, "d7"),
    ]


def test_an_open_intent_keeps_itself_and_all_after_it(
    log: AuditLog, clock: FakeClock
) -> None:
    """An intent without outcome is never pruned, however old it is."""
    _days(log, clock, 10)
    log.append(
        [AuditDraft(phase=Phase.INTENT, kind="CreateKey", operation_id="open")]
    ).wait()
    _days(log, clock, 30)

    assert 100 == log.prunable(_ago(clock, 5))
    log.prune(300, "too much")
    assert 50 < log.first_seq <= 100
    log.append([_outcome(0, "k", "d", operation_id="open")]).wait()
    assert 340 < log.prunable(_ago(clock, 5)) < 361


def test_a_prune_is_done_once(log: AuditLog, clock: FakeClock) -> None:
    """The same prune again finds nothing to do and records nothing."""
    _days(log, clock, 20)
    detail = _pruned(log, clock, 5)
    head = log.head()

    assert log.prune(detail.next_seq, "again") is None
    assert log.prune(0, "again") is None
    assert head == log.head()


def test_the_newest_record_is_never_pruned(log: AuditLog, clock: FakeClock) -> None:
    """A prune of everything leaves at least the newest record."""
    _days(log, clock, 20)
    log.prune(10_000, "everything")

    assert log.first_seq <= 199
    assert log.lines(log.first_seq, 1)


@pytest.mark.parametrize("make", ["segmented", "sqlite"], indirect=True)
def test_a_pruned_log_is_reopened_as_it_was(
    make: Callable[[], AuditLog], clock: FakeClock
) -> None:
    """First record, what is kept and the chain survive a restart."""
    log = make()
    log.append([_outcome(0, "k1", "d1")]).wait()
    _days(log, clock, 20)
    detail = _pruned(log, clock, 5)
    log.close()
    log = make()

    assert detail.next_seq == log.first_seq
    assert list(log.baseline()) == [KnownKey(KeyId("k1"), 1, "d1")]
    verify_range(log, KEY, 0, 10_000)
    _days(log, clock, 20)
    again = _pruned(log, clock, 5)
    assert detail.next_seq == again.first_seq
    assert again.next_seq > 300


@pytest.mark.parametrize(
    ("make", "name"),
    [("segmented", "audit.log"), ("sqlite", "audit.sqlite")],
    indirect=["make"],
)
def test_who_verifies_a_pruned_log_counts_what_is_there(
    make: Callable[[], AuditLog], clock: FakeClock, tmp_path: Path, name: str
) -> None:
    """Records that are gone are not among those that were verified."""
    log = make()
    _days(log, clock, 20)
    detail = _pruned(log, clock, 5)
    last = log.head().seq
    log.close()
    told: list[int] = []
    found = open_verifier(tmp_path / name, KEY).verify(told.append)

    assert detail.next_seq == found.first_seq
    assert last + 1 - detail.next_seq == found.records == told[-1]


def test_records_that_go_while_they_are_verified_are_not_missed(
    log: AuditLog, clock: FakeClock
) -> None:
    """
    A verification that meets a prune begins again, with the oldest record that is left.
    """
    _days(log, clock, 20)

    class Pruned:
        def __getattr__(self, name: str) -> Any:
            if name == "lines" and log.first_seq == 0:
                _pruned(log, clock, 5)
            return getattr(log, name)

    found = verify_range(Pruned(), KEY, 0, 10**6)

    assert 0 < log.first_seq == found.start_seq
    assert log.head().seq == found.head_seq
    assert found.next_seq is None


def test_others_append_and_read_while_records_are_pruned(
    log: AuditLog, clock: FakeClock
) -> None:
    """Nobody sees a gap, a damaged record or a wrong number, and nothing is lost."""
    done = threading.Event()

    def write() -> int:
        count = 0
        while not done.is_set():
            log.append([_draft(count)]).wait()
            count += 1
        return count

    def read() -> int:
        count = 0
        while not done.is_set():
            start, lines = lines_from(log, 0, 300)
            for seq, line in enumerate(lines, start):
                event_of(line, seq)
            with suppress(AuditUnavailableError):
                verify_range(log, KEY, 0, 500)
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write) for _ in range(2)]
        reader = pool.submit(read)
        for _ in range(6):
            _days(log, clock, 3, per_day=20)
            log.prune(log.prunable(_ago(clock, 1)), "1 day")
        done.set()
        written = sum(writer.result(60) for writer in writers)
        assert reader.result(60) > 0
    head = log.head().seq
    events = [
        event_of(line, seq)
        for seq, line in enumerate(log.lines(log.first_seq, 10**6), log.first_seq)
    ]

    assert log.first_seq > 0
    assert head == events[-1].seq
    prunes = [e for e in events if e.kind == "system.prune"]
    assert head + 1 >= written + 360 + len(prunes)
    verify_range(log, KEY, 0, 10**6)


def test_a_closed_log_is_not_pruned(log: AuditLog, clock: FakeClock) -> None:
    """Neither asking nor pruning works once the log is closed."""
    _days(log, clock, 20)
    limit = log.prunable(_ago(clock, 5))
    log.close()

    with pytest.raises(AuditUnavailableError):
        log.prunable(_ago(clock, 5))
    with pytest.raises(AuditUnavailableError):
        log.prune(limit, "5 days")
