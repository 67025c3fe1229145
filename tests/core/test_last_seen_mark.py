# SPDX-License-Identifier: MIT
"""Last-seen mark: it survives kills and power failures, and finds older databases."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm_core._internal.cluster.mark import LastSeen, LastSeenMark, SeenEnd, compare
from hsm_core.errors import ConfigurationError, StoreLockedError
from tests.core.key_support import RING
from tests.support import no_descriptors

OWN, OTHER = "a" * 32, "b" * 32
HEAD = b"h" * 32


def opened(path: Path, node: str = "a") -> LastSeenMark:
    """Open a mark."""
    return LastSeenMark(path, RING.mark_mac, node.encode())


def end(seq: int) -> SeenEnd:
    """Return the end of a log at a record."""
    return SeenEnd(seq, f"{seq:064x}")


def test_what_was_noted(tmp_path: Path) -> None:
    """
    A mark that is opened again says what was noted, and a new one says nothing.
    """
    mark = opened(tmp_path / "state" / "mark")
    new = mark.before
    mark.note_logs({OWN: end(1)})
    mark.note_change(7, HEAD)
    mark.note_logs({OWN: end(5), OTHER: end(3)})
    mark.close()

    assert new is None
    again = opened(tmp_path / "state" / "mark")
    assert LastSeen(7, HEAD, {OWN: end(5), OTHER: end(3)}) == again.before
    assert again.before == again.seen
    assert 0o600 == (tmp_path / "state" / "mark").stat().st_mode & 0o777
    again.close()


def test_killed(tmp_path: Path) -> None:
    """
    A process that is killed loses nothing that it has noted, synced or not.
    """
    child = os.fork()
    if not child:
        mark = opened(tmp_path / "mark")
        for number in range(1, 40):
            mark.note_change(number, HEAD)
            if number % 7 == 0:
                mark.sync()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)

    mark = opened(tmp_path / "mark")
    assert mark.before is not None
    assert 39 == mark.before.revision
    mark.close()


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.data())
@settings(max_examples=60)
def test_a_power_failure(
    tmp_path_factory: pytest.TempPathFactory, syncs: list[bool], data: st.DataObject
) -> None:
    """
    Whatever part of the writes since the last sync is lost, what was synced is there.
    """
    path = tmp_path_factory.mktemp("mark") / "mark"
    mark = opened(path)
    synced, durable = 0, path.read_bytes()
    for number, is_synced in enumerate(syncs, 1):
        mark.note_change(number, HEAD)
        if is_synced:
            mark.sync()
            synced, durable = number, path.read_bytes()
    written = path.read_bytes()
    durable = durable.ljust(len(written), b"\0")
    # Each sector that was written since has its old content, or the new one.
    places = [n for n in range(0, len(written), 512) if _differs(written, durable, n)]
    torn = bytearray(durable)
    for place in places:
        if data.draw(st.booleans()):
            cut = data.draw(st.integers(0, 512))
            torn[place : place + cut] = written[place : place + cut]
    mark.close()
    path.write_bytes(torn)

    again = opened(path)
    found = again.before.revision if again.before else 0
    again.close()
    assert synced <= found <= len(syncs)


def test_a_power_failure_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A power failure soon after the start leaves what the process of before has synced.
    """
    path, killed = tmp_path / "mark", tmp_path / "killed"
    before = opened(path)
    before.note_change(1, HEAD)
    before.sync()
    durable = [path.read_bytes()]
    before.note_change(2, HEAD)
    killed.write_bytes(path.read_bytes())
    before.close()
    monkeypatch.setattr(os, "fdatasync", lambda _: durable.append(killed.read_bytes()))

    mark = opened(killed)
    mark.note_change(3, HEAD)

    kept, written = durable[-1], killed.read_bytes()
    mark.close()
    # Of each slot that was written since, the first bytes are new.
    places = range(4096, len(written), 1 << 20)
    slots = [place for place in places if _differs(written, kept, place)]
    torn = bytearray(kept.ljust(len(written), b"\0"))
    for place in slots:
        torn[place : place + 40] = written[place : place + 40]
    killed.write_bytes(torn)
    again = opened(killed)
    again.close()
    assert again.before is not None
    assert 2 == again.before.revision


def _differs(one: bytes, other: bytes, place: int) -> bool:
    return one[place : place + 512] != other[place : place + 512]


def test_of_another_node(tmp_path: Path) -> None:
    """
    A mark of another node or cluster is refused, and so is one that was altered.
    """
    path = tmp_path / "mark"
    opened(path).close()
    with pytest.raises(ConfigurationError, match="belongs to another node or cluster"):
        opened(path, "b")
    content = bytearray(path.read_bytes())
    content[4096 + 12] ^= 1
    path.write_bytes(content)

    with pytest.raises(ConfigurationError, match="move the file away"):
        opened(path)


def test_one_process(tmp_path: Path) -> None:
    """
    Two processes can't have one mark, and a node has it again after its end.
    """
    mark = opened(tmp_path / "mark")
    with pytest.raises(StoreLockedError, match="file of its own"):
        opened(tmp_path / "mark")
    mark.close()

    opened(tmp_path / "mark").close()


def test_more_logs_than_have_room(tmp_path: Path) -> None:
    """
    A mark that grows too large is reported, and keeps what it said before.
    """
    mark = opened(tmp_path / "mark")
    mark.note_logs({OWN: end(1)})
    mark.sync()
    mark.note_logs({f"{number:032x}": end(number) for number in range(12_000)})
    mark.sync()
    assert "can't be written: File too large" in mark.failure
    mark.close()

    again = opened(tmp_path / "mark")
    assert {OWN: end(1)} == (again.before or LastSeen()).logs
    again.close()


def revision_of(path: Path) -> int:
    """Return the revision that a mark has kept."""
    mark = opened(path)
    mark.close()
    assert mark.before is not None
    return mark.before.revision


def test_a_mark_that_can_not_be_written(tmp_path: Path) -> None:
    """
    A failure is shown, costs no answer, and is over with the next sync that works.
    """
    mark = opened(tmp_path / "mark")
    file = mark._file  # noqa: SLF001
    mark._file = os.open(tmp_path / "mark", os.O_RDONLY)  # noqa: SLF001
    mark.note_change(1, HEAD)
    failed = mark.failure
    os.close(mark._file)  # noqa: SLF001
    mark._file = file  # noqa: SLF001
    mark.sync()

    assert "can't be written" in failed
    assert not mark.failure
    mark.close()
    assert 1 == revision_of(tmp_path / "mark")


def test_no_descriptor_for_its_folder(tmp_path: Path) -> None:
    """
    A new mark whose name can't be synced is a finding, until a later sync makes up.
    """
    with no_descriptors(left=1):
        mark = opened(tmp_path / "mark")
        mark.note_change(1, HEAD)
        mark.sync()
        failed = mark.failure
    mark.sync()

    assert "Too many open files" in failed
    assert not mark.failure
    mark.close()
    assert 1 == revision_of(tmp_path / "mark")


@pytest.mark.parametrize("own", [SeenEnd(5, "f" * 64), None], ids=["other", "gone"])
def test_a_log_without_a_record_that_was_seen(own: SeenEnd | None) -> None:
    """It alone is named, whether it has another record there or none."""
    seen = LastSeen(7, HEAD, {OWN: end(5), OTHER: end(3)})
    ends = {OWN: own, OTHER: end(3)}
    found = compare(seen, 7, lambda _: HEAD, lambda log_id, _: ends[log_id])

    assert found is not None
    assert {OWN} == found.logs.keys()
    assert f"log {OWN} lacks record 5" in found.reason
