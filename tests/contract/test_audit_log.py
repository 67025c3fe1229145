"""What every `AuditLog` promises, run over every implementation."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from hsm_core._internal.audit.record import GENESIS, event_of, leaf_hash
from hsm_core.errors import AuditUnavailableError, InvalidInputError
from hsm_core.model import (
    AuditedCaller,
    AuditedKey,
    AuditEvent,
    CountedDetail,
    LogBegunDetail,
    Phase,
)
from hsm_core.protocols import AuditDraft, AuditHead, AuditHealth, AuditLog
from hsm_core.testing import FakeClock
from tests.contract.audit_rows import KINDS, open_empty
from tests.core.audit_support import KEY, followed


@pytest.fixture(params=KINDS)
def log(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock
) -> Iterator[AuditLog]:
    """Give an empty log of each kind."""
    log = open_empty(request.param, request, tmp_path, clock)
    yield log
    log.close()


def _draft(number: int = 0) -> AuditDraft:
    return AuditDraft(phase=Phase.SINGLE, kind="Sign", request_id=f"r{number}")


def _events(log: AuditLog) -> list[AuditEvent]:
    """Return all events but the one that names the log."""
    lines = log.lines(0, 100_000)
    return [event_of(line, seq) for seq, line in enumerate(lines)][1:]


def test_an_empty_log_has_no_head(log: AuditLog) -> None:
    """An empty log says -1 and zeros, and has no lines."""
    assert AuditHead(-1, GENESIS) == log.head() == log.durable_head()
    assert log.lines(0, 10) == []
    assert log.open_intents() == []


def test_what_is_durable_is_known(log: AuditLog) -> None:
    """It includes a record whose ticket says so, never goes back, nor past the head."""
    seen = []
    for number in range(20):
        log.append([_draft(number)]).wait()
        durable, head = log.durable_head(), log.head()
        assert durable.seq <= head.seq
        seen.append(durable.seq)
    log.append([_draft(20)], durable=True).wait()

    assert sorted(seen) == seen
    assert AuditHead(21, leaf_hash(log.lines(21, 1)[0])) == log.durable_head()


def test_a_new_log_remembers_no_set_digest(log: AuditLog) -> None:
    """Nothing was recorded before it was opened."""
    assert "" == log.set_digest_at_open


def test_is_available_and_names_itself(log: AuditLog) -> None:
    """A log is available and has an id of 32 hex digits."""
    assert log.available is True
    assert len(bytes.fromhex(log.log_id)) == 16


def test_is_well_until_it_is_closed(log: AuditLog) -> None:
    """Health is ok without cause, nothing has failed; a closed log fails."""
    log.append([_draft()]).wait()
    assert AuditHealth() == log.health
    log.close()

    assert "failing" == log.health.state


def test_reserved_records_are_records_like_others(log: AuditLog) -> None:
    """While nothing ails the log, they go the same way."""
    log.append([_draft(0)], reserved=True).wait()
    log.append([_draft(1)], durable=True, reserved=True).wait()

    assert ["r0", "r1"] == [event.request_id for event in _events(log)]


def test_appended_records_are_numbered_without_gaps(log: AuditLog) -> None:
    """Sequence numbers go up by one from 0, over appends of any size."""
    for size in (1, 3):
        log.append([_draft() for _ in range(size)])
    log.append([_draft() for _ in range(40)]).wait()

    assert list(range(1, 45)) == [event.seq for event in _events(log)]


def test_drafts_may_be_chosen_immediately_before_they_are_chained(
    log: AuditLog,
) -> None:
    """No record comes between the choice and the records that it returns."""
    numbers = iter(range(1_000_000))

    def choose() -> list[AuditDraft]:
        return [_draft(next(numbers)), _draft(next(numbers))]

    def append() -> None:
        for _ in range(50):
            log.append(choose).wait()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(append) for _ in range(4)]:
            done.result()

    assert [f"r{n}" for n in range(400)] == [e.request_id for e in _events(log)]


def test_a_choice_of_nothing_is_done_at_once(log: AuditLog) -> None:
    """Nothing is written, and the ticket is done without error."""
    told = list[BaseException | None]()
    ticket = log.append(tuple, durable=True)
    ticket.wait(0)
    ticket.add_done_callback(told.append)

    assert [None] == told
    assert -1 == log.head().seq


def test_a_choice_that_raises_writes_nothing(log: AuditLog) -> None:
    """Its error reaches the caller, and the log goes on."""

    def refuse() -> list[AuditDraft]:
        raise InvalidInputError("The key was revoked.")

    with pytest.raises(InvalidInputError, match="revoked"):
        log.append(refuse)
    log.append([_draft()]).wait()

    assert ["r0"] == [event.request_id for event in _events(log)]


def test_every_record_names_the_leaf_hash_of_the_one_before(log: AuditLog) -> None:
    """The chain begins at zeros and each link is the leaf hash of the line before."""
    log.append([_draft(n) for n in range(20)]).wait()
    lines = log.lines(0, 100)

    expected = [leaf_hash(line) for line in lines]
    assert expected[:-1] == [event.prev for event in _events(log)]
    assert GENESIS == event_of(lines[0], 0).prev
    assert AuditHead(20, expected[-1]) == log.head()


def test_a_record_holds_all_that_the_draft_holds(
    log: AuditLog, clock: FakeClock
) -> None:
    """Every field of the draft stands in the event, with time, node and log id."""
    caller = AuditedCaller(principal="zoë\n\u202e\x1b[0m", roles=("Operator",))
    key = AuditedKey(algorithm="AES-256-GCM", tags=("a", "b"), state="active")
    draft = AuditDraft(
        phase=Phase.OUTCOME,
        kind="RotateKey",
        code="access_denied",
        request_id="request",
        operation_id="operation",
        key_id="key",
        version=2,
        generation=3,
        document_before="aa",
        document_after="bb",
        set_digest="cc",
        caller=caller,
        key=key,
        parameters={"n": -1, "t": "x", "l": ["y", "z"]},
        rule="rule",
        policy="dd",
        digest="ee",
        detail=CountedDetail(count=4, since=5),
    )
    log.append([draft]).wait()
    event = _events(log)[0]

    begun = event_of(log.lines(0, 1)[0], 0)
    assert LogBegunDetail(log_id=log.log_id, node="node-1") == begun.detail
    assert (2, clock.now()) == (event.format, event.time)
    for name in set(AuditDraft.__struct_fields__) - {"bound", "subjects"}:
        assert getattr(draft, name) == getattr(event, name), name


def test_a_record_is_one_line(log: AuditLog) -> None:
    """Newlines in any text are escaped, so that none can forge a record."""
    forged = '"},"mac":"' + "0" * 64 + '"}\n{"format":2,"seq":"'
    log.append([AuditDraft(phase=Phase.SINGLE, kind=forged)]).wait()
    lines = log.lines(0, 10)

    assert 2 == len(lines)
    assert b"\n" not in lines[1]
    assert forged == _events(log)[0].kind


def test_what_was_written_verifies(log: AuditLog) -> None:
    """The lines of a log pass verification with the key."""
    log.append([_draft(n) for n in range(50)]).wait()
    done = followed(log.lines(0, 100), log_id=log.log_id, hmac_key=KEY)

    assert 50 == done.seq
    assert log.head() == AuditHead(done.seq, done.leaf_hash)


def test_lines_gives_any_range(log: AuditLog) -> None:
    """A range is cut at both ends, and empty beyond the head."""
    for first in range(0, 400, 8):
        # The first record names the log.
        log.append([_draft(first + n) for n in range(8 - (not first))]).wait()
    everything = log.lines(0, 1000)

    assert 400 == len(everything)
    for start, limit in [(0, 1), (5, 10), (126, 4), (399, 5), (250, 1000), (7, 0)]:
        assert everything[start : start + limit] == log.lines(start, limit)
    assert log.lines(400, 10) == []


def test_times_follow_the_clock_and_order_follows_seq(
    log: AuditLog, clock: FakeClock
) -> None:
    """A clock that goes backwards changes times and nothing else."""
    start = clock.now()
    for step in (0, -3600, 0, 7200):
        clock.step(step)
        log.append([_draft()]).wait()

    microseconds = [0, -3_600_000_000, -3_600_000_000, 3_600_000_000]
    assert [start + m for m in microseconds] == [e.time for e in _events(log)]
    followed(log.lines(0, 9), log_id=log.log_id, hmac_key=KEY)


def test_a_draft_that_can_not_be_recorded_leaves_no_trace(log: AuditLog) -> None:
    """It is refused with all that came with it, and the chain goes on."""
    with pytest.raises(InvalidInputError):
        log.append([_draft(1), AuditDraft(phase=Phase.INTENT, kind="CreateKey")])
    log.append([_draft(2)]).wait()

    assert ["r2"] == [event.request_id for event in _events(log)]


def test_nothing_to_append_is_refused(log: AuditLog) -> None:
    """An append without drafts is a mistake of the caller."""
    with pytest.raises(InvalidInputError) as caught:
        log.append([])
    assert "drafts" == caught.value.facts["field"]


@pytest.mark.parametrize("durable", [False, True])
def test_a_callback_is_called_once(log: AuditLog, durable: bool) -> None:
    """A callback is told None, whether it is added before or after the end."""
    told: list[BaseException | None] = []
    called = threading.Event()

    def callback(error: BaseException | None) -> None:
        told.append(error)
        called.set()

    ticket = log.append([_draft()], durable=durable)
    ticket.add_done_callback(callback)
    assert called.wait(60)
    ticket.wait()
    ticket.add_done_callback(told.append)

    assert [None, None] == told


def test_a_callback_that_breaks_does_not_break_the_log(log: AuditLog) -> None:
    """Later appends succeed after a callback that raised."""
    seen = threading.Event()

    def callback(error: BaseException | None) -> None:
        seen.set()
        raise RuntimeError(error)

    ticket = log.append([_draft()])
    with suppress(RuntimeError):
        ticket.add_done_callback(callback)
    assert seen.wait(60)
    log.append([_draft()]).wait()

    assert 2 == log.head().seq


def test_many_threads_make_one_chain(log: AuditLog) -> None:
    """Appends from many threads give one chain, and each thread's own order stays."""

    def work(worker: int) -> None:
        for number in range(100):
            draft = _draft(number)
            named = AuditDraft(
                phase=draft.phase, kind=f"w{worker}", request_id=f"{number:03d}"
            )
            ticket = log.append([named], durable=number % 25 == 0)
            if number % 10 == 9:
                ticket.wait()
                log.lines(number, 7)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    done = followed(log.lines(0, 10_000), log_id=log.log_id, hmac_key=KEY)
    events = _events(log)

    assert 800 == done.seq
    for worker in range(8):
        own = [e.request_id for e in events if e.kind == f"w{worker}"]
        assert sorted(own) == own
        assert 100 == len(own)


def test_a_closed_log_refuses_everything(log: AuditLog) -> None:
    """After closing, which may happen twice, nothing is appended and nothing read."""
    log.append([_draft()]).wait()
    log.close()
    log.close()

    assert log.available is False
    with pytest.raises(AuditUnavailableError):
        log.append([_draft()])
    with pytest.raises(AuditUnavailableError):
        log.lines(0, 1)
