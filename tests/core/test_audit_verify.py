# SPDX-License-Identifier: MIT
"""Verification of a log by someone who did not write it, and how it may end."""

from __future__ import annotations

import os
import threading
import tracemalloc
from pathlib import Path
from random import Random
from typing import NamedTuple, cast

import pytest

from hsm_core._internal.audit.chain import Chain, Follower
from hsm_core._internal.audit.facts import FactsTrack, entry_of, facts_line_of
from hsm_core._internal.audit.record import GENESIS, leaf_hash
from hsm_core._internal.audit.uses import lines_of, uses_from
from hsm_core._internal.audit.verify import verify_range
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.filesystem import audit_stored
from hsm_core._internal.stores.filesystem.audit_stored import StoredSegments
from hsm_core._internal.stores.filesystem.audit_verify import AuditVerifier
from hsm_core.errors import AuditTamperedError, ConfigurationError
from hsm_core.factory import open_verifier
from hsm_core.model import AuditedCaller
from hsm_core.protocols import AuditHead, AuditLog
from hsm_core.settings import AuditSync
from tests.core.audit_support import (
    KEY,
    copy_of,
    draft,
    fill,
    followed,
    open_log,
    opened,
    stored,
    torn_log,
    verified,
    verifier_of,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the path of a closed trail of 100 records in several segments, to copy."""
    path = tmp_path_factory.mktemp("trail") / "log" / "audit.log"
    with opened(path, segment_bytes=4096) as log:
        fill(log, 100, one_by_one=True)
    return path


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    """Give the path of such a trail to do anything with."""
    return copy_of(made, tmp_path / "log")


def _lines(path: Path) -> tuple[str, list[bytes]]:
    with opened(path) as log:
        return log.log_id, log.lines(0, 1000)


def test_all_segments_are_verified(path: Path) -> None:
    """The answer counts every record and says what was checked."""
    log_id, lines = _lines(path)
    told: list[int] = []
    answer = AuditVerifier(path, KEY).verify(told.append)

    assert (100, 99, leaf_hash(lines[-1]), log_id) == (
        answer.records,
        answer.head_seq,
        answer.head_hash,
        answer.log_id,
    )
    assert (True, True, True, 0) == (
        answer.macs_checked,
        answer.mark_checked,
        answer.clean,
        answer.torn_bytes,
    )
    assert [100] == told


@pytest.mark.parametrize("key", [KEY, None])
def test_a_line_that_becomes_whole_meanwhile_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: bytes | None
) -> None:
    """Half a line that the writer is about to end is not torn when it has ended it."""
    path = tmp_path / "busy" / "audit.log"
    log = open_log(path)
    fill(log, 3)
    copied = copy_of(path, tmp_path / "copied")
    fill(log, 2)
    lines = path.read_bytes()
    log.close()
    copied.write_bytes(lines[:-300])
    whole = StoredSegments.judge_end

    def ending(
        self: StoredSegments, follower: Follower, error: AuditTamperedError | None
    ) -> None:
        copied.write_bytes(lines)
        whole(self, follower, error)

    monkeypatch.setattr(StoredSegments, "judge_end", ending)
    found = verified(copied, key)
    assert (5, 0) == (found.records, found.torn_bytes)


def test_a_missing_trail_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    """A wrong path is no damage."""
    for path in (tmp_path / "audit.log", tmp_path / "nowhere" / "audit.log"):
        for key in (KEY, None):
            with pytest.raises(ConfigurationError, match="No audit log"):
                verified(path, key)


@pytest.mark.parametrize("name", ["audit.log", "audit.log.head"])
def test_what_is_no_file_can_not_be_verified(tmp_path: Path, name: str) -> None:
    """A pipe does not block and a directory does not confuse."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(ConfigurationError):
        verified(tmp_path / "audit.log")
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()

    with pytest.raises(ConfigurationError):
        verified(tmp_path / "audit.log")


def test_an_empty_trail_is_intact(tmp_path: Path) -> None:
    """A trail that was made and never written has no records and no head."""
    path = tmp_path / "log" / "audit.log"
    with opened(path) as log:
        log_id = log.log_id
    answer = verified(path)

    assert (0, -1, GENESIS, log_id) == (
        answer.records,
        answer.head_seq,
        answer.head_hash,
        answer.log_id,
    )
    assert "" == verified(path, None).log_id


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"no log", Random(1).randbytes(100_000), None]
)
@pytest.mark.parametrize("key", [KEY, None])
def test_what_is_no_log_is_not_intact(
    path: Path, tmp_path: Path, content: bytes | None, key: bytes | None
) -> None:
    """Without a head mark, a file without a whole record is not taken for a log."""
    alone = tmp_path / "alone" / "audit.log"
    alone.parent.mkdir()
    if content is None:
        content = b"".join(path.read_bytes().splitlines(keepends=True)[:1])[:-1]
    alone.write_bytes(content)
    if key is None and not content:
        assert 0 == verified(alone, key).records
        return

    with pytest.raises(AuditTamperedError):
        verified(alone, key)


def test_a_wrong_key_is_noticed_without_a_head_mark(tmp_path: Path) -> None:
    """A log without its head mark is not intact for whoever has another key."""
    path = tmp_path / "log" / "audit.log"
    with opened(path) as log:
        fill(log, 5)
    path.with_name("audit.log.head").unlink()

    with pytest.raises(AuditTamperedError):
        verified(path, KEY[::-1])


def test_nothing_is_written_and_no_lock_taken(path: Path) -> None:
    """Verification leaves every file as it is, and works while a writer has it."""
    path.with_name("audit.log.lock").unlink()
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    verified(path)

    assert before == {file: file.read_bytes() for file in path.parent.iterdir()}


@pytest.mark.parametrize("sync", list(AuditSync))
def test_a_trail_in_use_verifies_at_every_moment(
    tmp_path: Path, sync: AuditSync
) -> None:
    """A verifier sees a consistent prefix while records are written and rotated."""
    path = tmp_path / "log" / "audit.log"
    log = open_log(path, sync=sync, segment_bytes=4096)
    fill(log, 1)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            log.append([draft(number), draft(number + 1)]).wait()
            number += 2
            stop.wait(0.001)  # A disk in memory is quicker than any verifier.

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while (acknowledged := log.head().seq) < 300:
            answer = verifier_of(path).verify()
            assert answer.head_seq >= acknowledged
            assert (answer.clean, answer.in_use) == (False, True)
            assert verifier_of(path, None).verify().head_seq >= answer.head_seq
    finally:
        stop.set()
        writer.join()
        log.close()

    assert verified(path).clean


def test_a_trail_opened_while_it_is_verified_is_no_damage(path: Path) -> None:
    """Records that follow a clean mark are looked at again with the mark of now."""
    done = threading.Event()

    def write(reached: str) -> None:
        if reached == "audit.verify.after_head" and not done.is_set():
            done.set()
            with opened(path) as log:
                fill(log, 5)

    with install(write):
        answer = verifier_of(path).verify()

    assert (105, False) == (answer.records, answer.clean)


def test_a_segment_closed_while_the_trail_is_verified_is_no_damage(path: Path) -> None:
    """The file that was live is followed to its end, and what came later left out."""
    with opened(path, segment_bytes=4096) as log:
        fill(log, 1)
        done = threading.Event()

        def write(reached: str) -> None:
            if reached == "audit.verify.after_live" and not done.is_set():
                done.set()
                fill(log, 40, one_by_one=True)

        with install(write):
            answer = verifier_of(path).verify()

    assert 101 < answer.records < 141
    assert 141 == verified(path).records


def test_memory_does_not_grow_with_the_trail(tmp_path: Path) -> None:
    """Verifying 12,000 records takes no more memory than a few lines."""
    path = tmp_path / "log" / "audit.log"
    with opened(path) as log:
        for _ in range(12):
            fill(log, 1000)
    assert path.stat().st_size > 3_000_000
    told: list[int] = []
    AuditVerifier(path, KEY).verify(told.append)
    assert [10_000, 12_000] == told
    tracemalloc.start()
    try:
        verifier_of(path).verify()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 500_000


def test_an_endless_line_is_refused_in_little_memory(tmp_path: Path) -> None:
    """A line is cut at the longest that a record may have."""
    path = tmp_path / "log" / "audit.log"
    log = open_log(path)
    fill(log, 5)
    killed = copy_of(path, tmp_path / "killed")
    log.close()
    with killed.open("ab") as file:
        file.truncate(200 * 1024 * 1024)
    tracemalloc.start()
    try:
        with pytest.raises(AuditTamperedError) as caught:
            verifier_of(killed).verify()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert 5 == caught.value.facts["seq"]
    assert peak < 150 * 1024 * 1024


def test_another_trail_in_its_place_is_no_trail_that_was_pruned(
    path: Path, tmp_path: Path
) -> None:
    """The head mark tells of which trail a live segment must be, wherever it begins."""
    alone = tmp_path / "alone" / "audit.log"
    with opened(alone, seed=1) as log:
        fill(log, 3)
    with opened(path) as log:
        fill(log, 2)
    alone.write_bytes(path.read_bytes())

    with pytest.raises(AuditTamperedError) as caught:
        verified(alone)
    assert {"seq": 0, "reason": "mac"} == caught.value.facts


def test_a_tail_is_only_as_long_as_what_waits_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than can be on its way to the disk at one time was not torn by a crash."""
    monkeypatch.setattr(audit_stored, "MAX_TORN_BYTES", 1000)
    killed = torn_log(tmp_path, b"x" * 1000)

    assert 1000 == verifier_of(killed).verify().torn_bytes
    with killed.open("ab") as file:
        file.write(b"x")
    with pytest.raises(AuditTamperedError) as caught:
        verifier_of(killed).verify()
    assert {"seq": 3, "reason": "torn"} == caught.value.facts


def test_the_end_of_a_log_with_facts() -> None:
    """Read as fast as uses are, a record that ends its log still ends it."""
    chain = Chain(log_id="0" * 32, hmac_key=KEY, node="", random=os.urandom)
    records = chain.extend([draft(0), draft(0), draft(0, kind="system.log-closed")], 0)
    begun, *others = map(stored, records)
    follower = Follower(log_id=None, hmac_key=KEY)
    facts = FactsTrack()
    follower.advance(begun, facts)
    for seq, record in ((1, others[0]), (3, others[-1])):
        facts.take(facts_line_of(record), seq)
        facts.rewind(seq + 1)
    read = lines_of(b"".join(entry_of(record) + b"\n" for record in others))

    assert read[:2] == uses_from(read, 0)
    assert 2 == follower.follow_uses(uses_from(read, 0), facts)


def _one_by_one(path: Path, key: bytes | None) -> object:
    """Return the verdict of a verification that looks at each record by itself."""
    try:
        return open_verifier(path, key).verify(look=lambda event: None)
    except AuditTamperedError as error:
        return error.facts


def _many_at_a_time(path: Path, key: bytes | None) -> object:
    try:
        return open_verifier(path, key).verify()
    except AuditTamperedError as error:
        return error.facts


@pytest.mark.parametrize("key", [KEY, None], ids=["key", "chain only"])
def test_a_bad_byte_among_uses(key: bytes | None, tmp_path: Path) -> None:
    """
    It is named by its record and the reason, as if each was looked at alone.

    Without the key, the form of members is checked only where they are read.
    """
    path = tmp_path / "log" / "audit.log"
    with opened(path) as log:
        log.append([draft(0, bound=b"signature") for _ in range(8)]).wait()
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    begin = len(b"".join(lines[:6]))
    for at in range(begin, begin + len(lines[6]), 9):
        for byte in (whole[at] ^ 1, 0x0A, 0x22):
            path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
            alone = _one_by_one(path, key)
            if key is None and alone == {"seq": 5, "reason": "event"}:
                continue

            assert alone == _many_at_a_time(path, key), (at, byte)


class _Records(NamedTuple):
    """The reading side of an open log whose records were changed."""

    log_id: str
    records: list[bytes]
    end: AuditHead
    first_seq: int = 0

    def head(self) -> AuditHead:
        return self.end

    def lines(self, start_seq: int, limit: int, /) -> list[bytes]:
        return self.records[start_seq : start_seq + limit]


def test_a_range_is_verified_as_record_by_record(path: Path) -> None:
    """Records that are checked together have the faults that each has alone."""
    with opened(path) as log:
        carol = AuditedCaller(principal="carol")
        for number in range(20):
            log.append([draft(number), draft(number, caller=carol)]).wait()
        log_id, records, head = log.log_id, log.lines(0, 1000), log.head()
    lines = set(map(facts_line_of, records[1:]))
    random = Random(28)
    for _ in range(200):
        at, damaged = random.randrange(1, len(records)), list(records)
        match random.randrange(4):
            case 0:
                data = bytearray(records[at])
                data[random.randrange(len(data))] ^= 1 << random.randrange(8)
                damaged[at] = bytes(data)
            case 1:
                damaged[at] = entry_of(records[at])
            case 2:
                others = lines - {facts_line_of(records[at])}
                damaged[at] = min(others) + b"\n" + entry_of(records[at])
            case _:
                damaged[at] = records[at - 1]
        with pytest.raises(AuditTamperedError) as alone:
            followed(damaged, log_id=log_id)
        with pytest.raises(AuditTamperedError) as together:
            verify_range(
                cast("AuditLog", _Records(log_id, damaged, head)), KEY, 0, 1000
            )

        assert alone.value.facts == together.value.facts
