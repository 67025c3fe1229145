# SPDX-License-Identifier: MIT
"""What a walk over a trail finds of keys, and what a range of it must be."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from msgspec.structs import replace

from hsm_core._internal.audit.baseline import ACCEPTED, KnownKeys
from hsm_core._internal.audit.reading import AuditWalk, recorded_names
from hsm_core._internal.audit.verify import verify_range
from hsm_core._internal.stores.memory.audit import MemoryAuditLog
from hsm_core.errors import AuditTamperedError, InvalidInputError
from hsm_core.model import AuditedKey, KeyId, Phase
from hsm_core.operations import AuditVerification
from hsm_core.protocols import AuditDraft, KnownKey
from hsm_core.testing import FakeClock, FakeEntropy

KEY = bytes(range(32))
DAY = 24 * 3600
ONE, TWO = KeyId("1" * 36), KeyId("2" * 36)
DESTROYED = partial(KnownKey, destroyed=True)
WHOLE = partial(KnownKey, destroyed=False)


def changed(key_id: str, generation: int, **fields: object) -> AuditDraft:
    """Return the record of a key that was changed."""
    given: dict[str, object] = {
        "phase": Phase.OUTCOME,
        "kind": "RotateKey",
        "operation_id": f"{generation:032x}",
        "key_id": key_id,
        "generation": generation,
        "document_after": f"{generation:064x}",
    }
    return AuditDraft(**(given | fields))  # type: ignore[arg-type]


def noise(count: int) -> list[AuditDraft]:
    """Return records that change no key."""
    return [AuditDraft(phase=Phase.SINGLE, kind="Status")] * count


@pytest.fixture
def log(clock: FakeClock) -> MemoryAuditLog:
    """Give an empty trail in memory."""
    return MemoryAuditLog(KEY, clock=clock, entropy=FakeEntropy(), node="node-1")


def verifying(log: MemoryAuditLog) -> Callable[[int, int], AuditVerification]:
    """Return what verifies a range of a trail."""
    return lambda start, limit: verify_range(log, KEY, start, limit)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, WHOLE(ONE, 2, f"{2:064x}")),
        ({"code": "recovered-committed"}, WHOLE(ONE, 2, f"{2:064x}")),
        ({"kind": "DestroyKey"}, DESTROYED(ONE, 2, f"{2:064x}")),
        (
            {"kind": ACCEPTED, "phase": Phase.SINGLE},
            WHOLE(ONE, 2, f"{2:064x}"),
        ),
        ({"kind": ACCEPTED, "document_after": ""}, None),
        ({"code": "recovered-aborted"}, WHOLE(ONE, 1, f"{1:064x}")),
        ({"phase": Phase.INTENT}, WHOLE(ONE, 1, f"{1:064x}")),
        ({"document_after": ""}, WHOLE(ONE, 1, f"{1:064x}")),
    ],
)
def test_what_changes_a_key(
    log: MemoryAuditLog, fields: dict[str, object], expected: KnownKey | None
) -> None:
    """What was done to it, or accepted; not what was meant, refused or given up."""
    log.append([changed(ONE, 1), changed(ONE, 2, **fields)]).wait()

    walk = AuditWalk(log, verifying(log))

    assert expected == walk.known().get(ONE)
    assert ({ONE} if expected and expected.destroyed else set()) == walk.destroyed
    assert {ONE} == walk.changed


def test_what_was_destroyed_stays_so(log: MemoryAuditLog) -> None:
    """Whoever accepts an older document, or forgets the key, brings nothing back."""
    log.append(
        [
            changed(ONE, 1),
            changed(ONE, 2, kind="DestroyKey"),
            changed(TWO, 1, kind="DestroyKey"),
            changed(ONE, 1, kind=ACCEPTED),
            changed(TWO, 1, kind=ACCEPTED, document_after=""),
        ]
    ).wait()

    walk = AuditWalk(log, verifying(log))

    assert {ONE, TWO} == walk.destroyed
    assert {ONE: DESTROYED(ONE, 1, f"{1:064x}")} == walk.known()


def test_known_keys_go_on_from_what_was_known() -> None:
    """They are given by id, whatever the order they were met in."""
    before = [KnownKey(TWO, 7, "ab", destroyed=False), DESTROYED(ONE, 3, "cd")]

    keys = KnownKeys(before)

    assert 2 == len(keys)
    assert before[::-1] == [*keys]


def test_where_a_digest_was_met(log: MemoryAuditLog, clock: FakeClock) -> None:
    """The last record with it counts, and of a set digest what is about keys."""
    digests = "a" * 64, "b" * 64, "c" * 64
    drafts = [changed(ONE, n + 1) for n in range(5)]
    for draft, digest in zip(drafts, (*digests, digests[0], "d" * 64), strict=True):
        clock.advance(1)
        log.append([replace(draft, set_digest=digest + "f" * 64)]).wait()

    walk = AuditWalk(log, verifying(log), wanted=digests[:2])

    assert {"a" * 64: 4, "b" * 64: 2} == {k: seq for k, (seq, _) in walk.met.items()}
    times = {digest: time for digest, (_, time) in walk.met.items()}
    assert 2_000_000 == times["a" * 64] - times["b" * 64]


def test_it_advances(log: MemoryAuditLog) -> None:
    """What was recorded since is read, however much, and nothing read twice."""
    log.append([changed(ONE, 1), *noise(1500)]).wait()
    walk = AuditWalk(log, verifying(log))
    seen = list[tuple[int, int]]()

    def watch(start: int, limit: int) -> AuditVerification:
        seen.append((start, limit))
        return verify_range(log, KEY, start, limit)

    again = AuditWalk(log, watch)
    log.append([*noise(1), changed(TWO, 1)]).wait()
    for each in (walk, again):
        each.advance()

    assert {ONE, TWO} == set(walk.known()) == walk.changed
    assert [0, 1000, 1502] == [start for start, _ in seen]


def test_it_begins_with_what_is_kept_of_pruned_records(
    log: MemoryAuditLog, clock: FakeClock
) -> None:
    """Keys of pruned records are known, and only later ones were changed since."""
    log.append([changed(ONE, 1), changed(ONE, 2), *noise(3)]).wait()
    early = AuditWalk(log, verifying(log))
    clock.advance(10 * DAY)
    log.append([changed(TWO, 1), *noise(2)]).wait()
    log.prune(log.prunable(clock.now() - DAY * 1_000_000), "a day")

    walk = AuditWalk(log, verifying(log))
    early.advance()

    assert 0 < log.first_seq
    for each in (walk, early):
        assert {ONE, TWO} == set(each.known())
        assert 2 == each.known()[ONE].generation
    assert {TWO} == walk.changed
    assert {ONE, TWO} == early.changed


def test_names_while_records_are_pruned(log: MemoryAuditLog, clock: FakeClock) -> None:
    """They are read again from the records that are left."""
    named = [
        changed(key_id, 1, key=AuditedKey(algorithm="Ed25519", name=name))
        for key_id, name in ((ONE, "one"), (TWO, "two"))
    ]
    log.append([named[0], *noise(3)]).wait()
    clock.advance(10 * DAY)
    log.append([named[1], *noise(2)]).wait()

    def verify(start: int, limit: int) -> AuditVerification:
        done = verify_range(log, KEY, start, limit)
        log.prune(log.prunable(clock.now() - DAY * 1_000_000), "a day")
        return done

    names = recorded_names(log, verify, {ONE, TWO})

    assert 0 < log.first_seq
    assert {TWO: "two"} == names


def test_ranges(log: MemoryAuditLog) -> None:
    """A range ends at its limit or at the head, and tells where to go on."""
    log.append(noise(2499)).wait()

    whole = verify_range(log, KEY, 0, 10_000)
    part = verify_range(log, KEY, 1, 1200)
    last = verify_range(log, KEY, 2499, 1)
    beyond = verify_range(log, KEY, 2500, 1)

    assert (0, 2500, None, 2499) == _told(whole)
    assert (1, 1200, 1201, 2499) == _told(part)
    assert (2499, 1, None, 2499) == _told(last)
    assert (2500, 0, None, 2499) == _told(beyond)
    with pytest.raises(InvalidInputError, match="at most 2500, got 2501") as caught:
        verify_range(log, KEY, 2501, 1)
    assert {"field": "start_seq", "limit": 2500} == caught.value.facts


def _told(found: AuditVerification) -> tuple[int, int, int | None, int]:
    return found.start_seq, found.verified, found.next_seq, found.head_seq


class _Lying:
    """A log that gives other lines than it has."""

    def __init__(self, log: MemoryAuditLog, lines: list[bytes]) -> None:
        self._log = log
        self._lines = lines

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def lines(self, start_seq: int, limit: int, /) -> list[bytes]:
        """Give lines by their place."""
        return self._lines[start_seq : start_seq + limit]


@pytest.mark.parametrize(
    ("start", "bad"),
    [(0, "last"), (2, "last"), (0, "cut"), (3, "cut"), (2, "before"), (5, "missing")],
)
def test_lines_that_are_not_what_they_were(
    log: MemoryAuditLog, start: int, bad: str
) -> None:
    """A range is refused where a line, its end or the one before it is another."""
    other = MemoryAuditLog(KEY, clock=FakeClock(), entropy=FakeEntropy(), node="node-2")
    for each in (log, other):
        each.append(noise(5)).wait()
    mine, others = log.lines(0, 5), other.lines(0, 5)
    assert mine[4] != others[4]
    lying = {
        "last": [*mine[:4], others[4]],
        "cut": mine[:3],
        "before": [mine[0], others[1], *mine[2:]],
        "missing": mine[:4],
    }[bad]

    with pytest.raises(AuditTamperedError):
        verify_range(_Lying(log, lying), KEY, start, 100)  # type: ignore[arg-type]


def test_a_record_that_is_missing_hides_no_bad_one(log: MemoryAuditLog) -> None:
    """Where a record is missing and one before it is bad, that one is named."""
    log.append(noise(5)).wait()
    lines = log.lines(0, 5)
    lines[1] = lines[1].replace(b"Status", b"status")

    class Gap(_Lying):
        def lines(self, start_seq: int, limit: int, /) -> list[bytes]:
            if start_seq + limit > 3:
                raise AuditTamperedError("A record is missing.", seq=3)
            return super().lines(start_seq, limit)

    for kept, start, seq in ((lines, 0, 1), (log.lines(0, 5), 0, 3), (lines, 3, 3)):
        with pytest.raises(AuditTamperedError) as caught:
            verify_range(Gap(log, kept), KEY, start, 100)  # type: ignore[arg-type]
        assert seq == caught.value.facts["seq"]
        assert (seq == 3) is (str(caught.value) == "A record is missing.")


@pytest.mark.parametrize("before", [0, 1, 999, 1000, 1001])
def test_the_newest_record_is_read(log: MemoryAuditLog, before: int) -> None:
    """A walk reaches the head, wherever blocks end, and goes no further."""
    log.append([*noise(before), changed(ONE, 1)]).wait()

    assert {ONE} == AuditWalk(log, verifying(log)).changed


def test_an_event_is_one_of_the_trail(log: MemoryAuditLog) -> None:
    """A walk believes no record of which the verifier says that it is bad."""
    log.append([changed(ONE, 1), changed(ONE, 2)]).wait()

    def refuse(start: int, limit: int) -> AuditVerification:
        raise AuditTamperedError("A record is bad.", seq=start)

    with pytest.raises(AuditTamperedError):
        AuditWalk(log, refuse)
