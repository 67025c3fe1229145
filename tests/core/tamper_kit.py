"""
Attacks on a trail in files by someone who may write them and has not the key.

Each is a function that changes a trail and returns the first bad record. The numbers
are those of the threat model: 3, 9 and 13 need a checkpoint that is kept outside, and 7
is not among them where log and head mark are older together.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from hsm_core._internal import envelope
from hsm_core._internal.audit.record import (
    FRAME,
    decode_event,
    encode_event,
    leaf_hash,
)
from hsm_core.model import AuditedCaller, AuditEvent, PruneDetail
from hsm_core.testing import FakeClock
from tests.core.audit_prune_support import age, open_aged, prune, segments_of
from tests.core.audit_support import draft, open_log, read_lines, write_lines

__all__ = ["ATTACKS", "BASELINE_ATTACKS", "KINDS", "Attack", "Site", "attacked_site"]

KINDS = ("plain", "pruned", "healed")
"""What the trails that are attacked have been through."""


@dataclass(frozen=True, slots=True)
class Site:
    """
    A trail to attack, closed in order.

    Attributes:
        path: Its live segment.
        older: Its folder as it was a while ago.
        other: Another trail of the same key.
    """

    path: Path
    older: Path
    other: Path

    @property
    def segments(self) -> list[Path]:
        """All segments, the live one last."""
        return [*segments_of(self.path), self.path]

    @property
    def first_seq(self) -> int:
        """The oldest record."""
        return _event(read_lines(self.segments[0])[0]).seq

    @property
    def end(self) -> int:
        """One after the newest record."""
        return _event(read_lines(self.path)[-1]).seq + 1

    @property
    def baseline(self) -> Path:
        """The file with what is kept of pruned records."""
        return self.path.with_name("audit.log.baseline")


Attack: TypeAlias = Callable[[Site], int]


def attacked_site(folder: Path, kind: str) -> Site:
    """
    Make a trail in several segments, and what attacks on it are made of.

    Args:
        folder: Where it is made.

        kind: ``plain``; ``pruned``, twice; ``healed``: its segments overlap.
    """
    clock = FakeClock()
    path = folder / "log" / "audit.log"
    _grow(path, clock, 12)
    for days in (8, 6):
        if days == 6:
            shutil.copytree(path.parent, folder / "older")
        log = open_aged(path, clock)
        age(log, clock, 8)
        if kind == "pruned":
            prune(log, clock, days)
        for number in range(3):
            # So that the live segment holds some.
            log.append([draft(number)]).wait()
        log.close()
    if kind == "healed":
        _overlap(path)
    other = folder / "other" / "audit.log"
    log = open_log(other, clock=FakeClock(), seed=1)
    age(log, clock, 30)
    log.close()
    return Site(path, folder / "older", other)


def _grow(path: Path, clock: FakeClock, days: int) -> None:
    log = open_aged(path, clock)
    age(log, clock, days)
    log.close()


def _overlap(path: Path) -> None:
    segments = [*segments_of(path), path]
    for segment, after in pairwise(segments):
        rest = b"".join(line + b"\n" for line in read_lines(after)[:2])
        segment.write_bytes(segment.read_bytes() + rest + b'{"event":{"form')


def _event(line: bytes) -> AuditEvent:
    event = decode_event(envelope.split(FRAME, line)[0])
    assert event is not None
    return event


def _changed(line: bytes, **fields: Any) -> bytes:
    """Return a line with another event and the MAC that it had."""
    payload, mac = envelope.split(FRAME, line)
    event = decode_event(payload)
    assert event is not None
    changed = msgspec.structs.replace(event, **fields)
    return envelope.join(FRAME, encode_event(changed), mac)


def _in_the_middle(
    site: Site, change: Callable[[list[bytes], int], object]
) -> tuple[int, list[bytes]]:
    """Change the second segment at its fourth record; return that record's seq."""
    segment = site.segments[1]
    lines = read_lines(segment)
    seq = _event(lines[3]).seq
    change(lines, 3)
    write_lines(segment, lines)
    return seq, lines


def edit(site: Site) -> int:
    """Put another caller into a record (1)."""

    def change(lines: list[bytes], at: int) -> None:
        lines[at] = _changed(lines[at], caller=AuditedCaller(principal="mallory"))

    return _in_the_middle(site, change)[0]


def edit_and_chain_anew(site: Site) -> int:
    """Edit a record and make every later one follow from it (2)."""
    seq = edit(site)
    before = ""
    for segment in site.segments[1:]:
        lines = read_lines(segment)
        for at, line in enumerate(lines):
            if not line.endswith(b'"}'):
                continue
            found = _event(line)
            if found.seq > seq and before:
                lines[at] = _changed(line, prev=before)
            before = leaf_hash(lines[at])
        write_lines(segment, lines)
    return seq


def edit_and_sign_without_key(site: Site) -> int:
    """Edit a record and put a plain hash where its MAC was (2)."""

    def change(lines: list[bytes], at: int) -> None:
        payload = envelope.split(FRAME, _changed(lines[at], kind="Verify"))[0]
        lines[at] = envelope.join(FRAME, payload, hashlib.sha256(payload).digest())

    return _in_the_middle(site, change)[0]


def delete(site: Site) -> int:
    """Delete a record in the middle (4)."""
    return _in_the_middle(site, lambda lines, at: lines.pop(at))[0]


def delete_a_segment(site: Site) -> int:
    """Delete a segment in the middle (4)."""
    before, segment = site.segments[:2]
    segment.unlink()
    # Where they overlapped, the one before still has the first ones.
    whole = [line for line in read_lines(before) if line.endswith(b'"}')]
    return _event(whole[-1]).seq + 1


def reorder(site: Site) -> int:
    """Swap two records (5)."""

    def change(lines: list[bytes], at: int) -> None:
        lines[at], lines[at + 1] = lines[at + 1], lines[at]

    return _in_the_middle(site, change)[0]


def duplicate(site: Site) -> int:
    """Repeat a record (5)."""
    return _in_the_middle(site, lambda lines, at: lines.insert(at, lines[at - 1]))[0]


def replay(site: Site) -> int:
    """Put an older record in the place of another (5)."""

    def change(lines: list[bytes], at: int) -> None:
        lines[at] = lines[0]

    return _in_the_middle(site, change)[0]


def swap_segments(site: Site) -> int:
    """Let two segments change names (5)."""
    first, second = site.segments[:2]
    seq = site.first_seq
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    return seq


def replay_a_prune(site: Site) -> int:
    """Put an older record in the place of the newest one, a prune's if there is one."""
    lines = read_lines(site.path)
    older = [line for s in site.segments[:-1] for line in read_lines(s)]
    prunes = [line for line in older if b'"type":"prune"' in line]
    lines[-1] = (prunes or older)[0]
    write_lines(site.path, lines)
    return site.first_seq + _count(site) - 1


def _count(site: Site) -> int:
    return (
        _event(read_lines(site.path)[0]).seq
        - site.first_seq
        + len(read_lines(site.path))
    )


def truncate(site: Site) -> int:
    """Cut the newest record off (6)."""
    seq = site.end - 1
    write_lines(site.path, read_lines(site.path)[:-1])
    return seq


def remove_the_live_segment(site: Site) -> int:
    """Remove the newest segment (6)."""
    seq = _event(read_lines(site.path)[0]).seq
    for segment in site.segments[-2:-1]:
        # No overlap tells any more where it ended.
        lines = [line for line in read_lines(segment) if line.endswith(b'"}')]
        write_lines(segment, [line for line in lines if _event(line).seq < seq])
    site.path.unlink()
    return seq


def empty(site: Site) -> int:
    """Replace the trail by an empty one (8)."""
    for segment in segments_of(site.path):
        segment.unlink()
    site.path.write_bytes(b"")
    site.baseline.unlink(missing_ok=True)
    return 0


def splice(site: Site) -> int:
    """Put a record of another trail of the same key in the place of one (10)."""
    spliced = read_lines(site.other)

    def change(lines: list[bytes], at: int) -> None:
        lines[at] = spliced[_event(lines[at]).seq]

    return _in_the_middle(site, change)[0]


def strip_a_mac(site: Site) -> int:
    """Take the MAC off a record (11)."""

    def change(lines: list[bytes], at: int) -> None:
        lines[at] = b'{"event":' + envelope.split(FRAME, lines[at])[0] + b"}"

    return _in_the_middle(site, change)[0]


def blank_a_mac(site: Site) -> int:
    """Put zeros where a MAC was (11)."""

    def change(lines: list[bytes], at: int) -> None:
        payload = envelope.split(FRAME, lines[at])[0]
        lines[at] = envelope.join(FRAME, payload, bytes(32))

    return _in_the_middle(site, change)[0]


def remove_the_head(site: Site) -> int:
    """Remove the oldest segment without any record of it (12)."""
    seq = site.first_seq
    site.segments[0].unlink()
    return seq


def remove_the_head_of_a_segment(site: Site) -> int:
    """Remove the oldest records of the oldest segment, and rename it (12)."""
    first = site.segments[0]
    lines, seq = read_lines(first), site.first_seq
    write_lines(first, lines[3:])
    first.rename(first.with_name(f"{first.name[:-16]}{seq + 3:016d}"))
    return seq


def forge_a_prune(site: Site) -> int:
    """Remove the oldest segment, and make a record of a prune from another one (12)."""
    first, seq = site.segments[0], site.first_seq
    last = read_lines(first)
    next_seq = _event(read_lines(site.segments[1])[0]).seq
    first.unlink()
    detail = PruneDetail(
        first_seq=seq,
        next_seq=next_seq,
        last_leaf_hash=leaf_hash(last[next_seq - seq - 1]),
        roots=(),
        policy="365 days",
        baseline_sha256="0" * 64,
    )
    lines = read_lines(site.path)
    lines[-1] = _changed(lines[-1], kind="system.prune", detail=detail)
    write_lines(site.path, lines)
    return seq


def edit_the_baseline(site: Site) -> int:
    """Change the generation of a key in what is kept of pruned records."""
    lines = site.baseline.read_bytes().splitlines(keepends=True)
    key_id, generation, digest, *rest = msgspec.json.decode(lines[1])
    changed = [key_id, generation - 1, digest, *rest]
    lines[1] = msgspec.json.encode(changed) + b"\n"
    site.baseline.write_bytes(b"".join(lines))
    return 0


def lose_a_key(site: Site) -> int:
    """Take a key out of what is kept of pruned records, the count in step."""
    lines = site.baseline.read_bytes().splitlines(keepends=True)
    header = msgspec.json.decode(lines[0])
    header["keys"] -= 1
    site.baseline.write_bytes(
        b"".join([msgspec.json.encode(header) + b"\n", *lines[2:]])
    )
    return 0


def remove_the_baseline(site: Site) -> int:
    """Remove what is kept of pruned records."""
    site.baseline.unlink()
    return 0


def put_an_older_baseline_back(site: Site) -> int:
    """Put back what was kept after an earlier prune."""
    older = site.older / site.baseline.name
    header = msgspec.json.decode(older.read_bytes().splitlines()[0])
    shutil.copy(older, site.baseline)
    return int(header["next_seq"])


ATTACKS: tuple[Attack, ...] = (
    edit,
    edit_and_chain_anew,
    edit_and_sign_without_key,
    delete,
    delete_a_segment,
    reorder,
    duplicate,
    replay,
    swap_segments,
    replay_a_prune,
    truncate,
    remove_the_live_segment,
    empty,
    splice,
    strip_a_mac,
    blank_a_mac,
    remove_the_head,
    remove_the_head_of_a_segment,
    forge_a_prune,
)
"""Attacks on any trail."""

BASELINE_ATTACKS: tuple[Attack, ...] = (
    edit_the_baseline,
    lose_a_key,
    remove_the_baseline,
    put_an_older_baseline_back,
)
"""Attacks on what is kept of pruned records."""
