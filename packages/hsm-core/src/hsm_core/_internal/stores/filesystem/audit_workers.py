# SPDX-License-Identifier: MIT
"""
Worker processes that check closed segments of an audit log while it is verified.

A result says only that the records of a segment follow each other. The process that
verifies the log reads the segments in order, and skips the rest of one whose first
record it found good if the result begins with that record. It reads everything else
itself: a segment with a fault, and those of a worker that ended early or has stopped.
So there is one way to report a fault.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import IO, Final

import msgspec

from hsm_core._internal.audit.chain import Follower
from hsm_core._internal.audit.facts import FactsTrack
from hsm_core._internal.audit.record import is_log_close, may_tell_of_prune
from hsm_core._internal.audit.uses import Line
from hsm_core._internal.audit.verify import CheckedPart, PartFollower
from hsm_core._internal.lib.child_process import harden
from hsm_core._internal.stores.filesystem.audit_files import open_reader
from hsm_core._internal.stores.filesystem.audit_segments import Segment
from hsm_core._internal.stores.filesystem.audit_stored import segment_lines
from hsm_core.errors import HSMError
from hsm_core.settings import SCRUBBING_ALLOCATOR

PAYS_FROM: Final = 96 * 1024 * 1024
"""Bytes of closed segments from which workers save more time than they cost."""

_MOST: Final = 8
_TELL_EVERY: Final = 10_000
_SILENT_SECONDS: Final = 60.0
"""A worker that writes nothing for so long has stopped; else it takes a few seconds."""

_CHUNK: Final = 64 * 1024
_MAX_PRUNES: Final = 1000


class _Task(msgspec.Struct, frozen=True):
    """A segment to check: its file, its first record, and the one behind its last."""

    path: str
    seq: int
    end: int


class _Order(msgspec.Struct, frozen=True):
    """Everything that one worker checks. Keys are secret."""

    log_id: str | None
    hmac_key: bytes | None
    tasks: tuple[_Task, ...]

    def __repr__(self) -> str:
        return type(self).__name__


class _Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    Line of a worker's output.

    Attributes:
        told: Newest record that was checked so far; more lines follow.
        part: The whole segment; None if it must be read.
    """

    told: int = -1
    part: CheckedPart | None = None


_ORDERS: Final = msgspec.msgpack.Decoder(_Order)
_RESULTS: Final = msgspec.json.Decoder(_Result)
_ENCODE: Final = msgspec.json.encode


class SegmentWorkers:
    """
    Workers, each with the segments that it checks.

    Args:
        workers: The processes.
    """

    def __init__(self, workers: Sequence[subprocess.Popen[bytes]]) -> None:
        self._outputs = [_lines(worker) for worker in workers]
        self.follower: PartFollower | None = None

    def follow(self, position: int, /) -> bool:
        """Move on to the end of a segment if a worker found it good."""
        turn = position % (len(self._outputs) + 1)
        # Each segment of the first turn is read by this process.
        if not turn or self.follower is None:
            return False
        for line in self._outputs[turn - 1]:
            try:
                result = _RESULTS.decode(line)
            except msgspec.MsgspecError:
                return False  # It was killed while it wrote.
            if result.told < 0:
                return result.part is not None and self.follower.follow(result.part)
            self.follower.told(result.told)
        return False


def _lines(worker: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """Yield the output of a worker by lines, until it ends or has stopped."""
    assert worker.stdout is not None  # noqa: S101 (for the type checker)
    output, rest = worker.stdout.fileno(), b""
    poll = select.poll()
    poll.register(output, select.POLLIN)
    while poll.poll(_SILENT_SECONDS * 1000) and (data := os.read(output, _CHUNK)):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


@contextmanager
def segment_workers(
    closed: Sequence[Segment],
    live_seq: int | None,
    log_id: str | None,
    hmac_key: bytes | None,
) -> Iterator[SegmentWorkers | None]:
    """
    Run workers if the closed segments are long and there are processors for them.

    Args:
        closed: The closed segments that count, in order.

        live_seq: The first record of the live segment, if it is known.

        log_id: Id of the log; None before its first record was read.

        hmac_key: Key of the log; None leaves the MACs unchecked.

    Yields:
        The workers, which are stopped at the end; None if there are none.
    """
    workers: list[subprocess.Popen[bytes]] = []
    try:
        tasks = _tasks(closed, live_seq)
        turns = min(processors(), _MOST, len(tasks))
        if turns > 1 and (hmac_key is None or log_id) and _size(tasks) >= PAYS_FROM:
            for turn in range(1, turns):
                order = _Order(log_id, hmac_key, tuple(tasks[turn::turns]))
                if (worker := _started(order)) is None:
                    break
                workers.append(worker)
            # Each worker counts on the others.
            yield SegmentWorkers(workers) if len(workers) == turns - 1 else None
        else:
            yield None
    finally:
        for worker in workers:
            _stop(worker)


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _tasks(closed: Sequence[Segment], live_seq: int | None) -> list[_Task]:
    """Return what can be checked: segments whose end is known."""
    seqs = [segment.first_seq for segment in closed]
    if live_seq is not None:
        seqs.append(live_seq)
    return [
        _Task(str(segment.path.absolute()), first, end)
        for segment, (first, end) in zip(closed, pairwise(seqs), strict=False)
    ]


def _size(tasks: Sequence[_Task]) -> int:
    size = 0
    for task in tasks:
        with suppress(OSError):
            size += Path(task.path).stat().st_size
    return size


def _started(order: _Order) -> subprocess.Popen[bytes] | None:
    """Return a worker with its order; None if none can be started."""
    program = sys.executable or ""
    # An application that Python is a part of would start itself again.
    if not Path(program).name.startswith("python") or getattr(sys, "frozen", False):
        return None
    try:
        worker = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            (program, "-I", "-m", __name__, str(os.getpid())),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(SCRUBBING_ALLOCATOR),
            cwd="/",
            # An interrupt at the terminal is for the process that verifies.
            start_new_session=True,
        )
    except OSError:
        return None
    # A worker that has stopped before it reads a long order must hold nobody up.
    assert worker.stdin is not None  # noqa: S101 (for the type checker)
    teller = threading.Thread(target=_tell, args=(worker.stdin, order), daemon=True)
    try:
        teller.start()
    except RuntimeError:  # There is no room for a thread.
        worker.stdin.close()
        _stop(worker)
        return None
    return worker


def _tell(stream: IO[bytes], order: _Order) -> None:
    with suppress(OSError), stream:
        stream.write(msgspec.msgpack.encode(order))


def _stop(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    if worker.stdout is not None:
        worker.stdout.close()
    worker.wait()


def check_segment(
    path: Path,
    seq: int,
    end: int,
    log_id: str | None,
    hmac_key: bytes | None,
    output: IO[bytes] | None = None,
) -> CheckedPart | None:
    """
    Check that the records of a closed segment follow each other.

    Args:
        path: The segment.

        seq: Its first record.

        end: The first record of the next segment.

        log_id: Id of the log; None accepts any if there is no key.

        hmac_key: Key of the log; None leaves the MACs unchecked.

        output: Gets a line now and then.

    Returns:
        The records; None if anything about them must be reported or is unusual.
    """
    follower = Follower(log_id=log_id, hmac_key=hmac_key, seq=seq - 1, leaf_hash="")
    facts, first_leaf, told = FactsTrack(keeps_lines=False), "", seq
    prunes: list[tuple[int, str, bytes]] = []

    def follow_uses(lines: Sequence[Line], facts: FactsTrack) -> int:
        nonlocal told
        count = follower.follow_uses(lines, facts)
        if output is not None and follower.seq - told >= _TELL_EVERY:
            told = follower.seq
            _write(output, _Result(told=told))
        return count

    try:
        with open_reader(path) as file:
            for entry in segment_lines(file, seq, end, facts, follow_uses):
                follower.advance(entry, facts)
                first_leaf = first_leaf or follower.leaf_hash
                if may_tell_of_prune(entry):
                    prunes.append((follower.seq, follower.leaf_hash, entry))
                if is_log_close(entry) or len(prunes) > _MAX_PRUNES:
                    return None
    except (HSMError, OSError):
        return None
    if follower.seq != end - 1:
        return None
    return CheckedPart(seq, first_leaf, follower.seq, follower.leaf_hash, tuple(prunes))


def _write(output: IO[bytes], result: _Result) -> None:
    output.write(_ENCODE(result) + b"\n")
    output.flush()


def _work(source: IO[bytes], output: IO[bytes]) -> None:
    """Check the segments of the order that is read, until nobody wants the results."""
    order = _ORDERS.decode(source.read())
    for task in order.tasks:
        path = Path(task.path)
        part = check_segment(
            path, task.seq, task.end, order.log_id, order.hmac_key, output
        )
        _write(output, _Result(part=part))


if __name__ == "__main__":
    harden(int(sys.argv[1]))
    with suppress(BrokenPipeError):
        _work(sys.stdin.buffer, sys.stdout.buffer)
