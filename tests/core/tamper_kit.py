"""
Attacks on a trail in files by someone who may write them and has not the key.

Each is a function that changes a trail and returns the first bad record; those on
single records are of `record_attacks`. The numbers are those of the threat model: 3, 9
and 13 need a checkpoint that is kept outside, and 7 is not among them where log and
head mark are older together.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import msgspec

from hsm_core._internal.audit.facts import HASH, entry_of
from hsm_core._internal.audit.record import leaf_hash
from hsm_core.model import PruneDetail
from hsm_core.testing import FakeClock
from tests.core import record_attacks
from tests.core.audit_prune_support import age, open_aged, prune, segments_of
from tests.core.audit_support import draft, open_log, read_lines, write_lines
from tests.core.record_attacks import RecordAttack, changed, seq_of

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
        return seq_of(read_lines(self.segments[0])[0])

    @property
    def end(self) -> int:
        """One after the newest record."""
        return seq_of(read_lines(self.path)[-1]) + 1

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
        for number in range(4):
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
        whole = segment.read_bytes()
        rest = b"".join(
            (entry_of(line) if line[HASH] in whole else line) + b"\n"
            for line in read_lines(after)[:2]
        )
        segment.write_bytes(whole + rest + b'{"format":2,"s')


def _in_the_middle(made: RecordAttack) -> Attack:
    """Return what makes an attack on the fourth record of the second segment."""

    def attack(site: Site) -> int:
        segment = site.segments[1]
        lines = read_lines(segment)
        first = seq_of(lines[0])
        at = made(lines, 3, read_lines(site.other))
        write_lines(segment, lines)
        return first + at

    attack.__name__ = made.__name__
    return attack


edit: Attack = _in_the_middle(record_attacks.edit)


def edit_and_chain_anew(site: Site) -> int:
    """Edit a record and make every later one follow from it (2)."""
    seq = edit(site)
    before = ""
    for segment in site.segments[1:]:
        lines = read_lines(segment)
        for at, line in enumerate(lines):
            if not line.endswith(b'"}'):
                continue
            if seq_of(line) > seq and before:
                lines[at] = changed(line, prev=before)
            before = leaf_hash(lines[at])
        write_lines(segment, lines)
    return seq


def delete_a_segment(site: Site) -> int:
    """Delete a segment in the middle (4)."""
    before, segment = site.segments[:2]
    segment.unlink()
    # Where they overlapped, the one before still has the first ones.
    whole = [line for line in read_lines(before) if line.endswith(b'"}')]
    return seq_of(whole[-1]) + 1


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
        seq_of(read_lines(site.path)[0]) - site.first_seq + len(read_lines(site.path))
    )


def truncate(site: Site) -> int:
    """Cut the newest record off (6)."""
    seq = site.end - 1
    write_lines(site.path, read_lines(site.path)[:-1])
    return seq


def remove_the_live_segment(site: Site) -> int:
    """Remove the newest segment (6)."""
    seq = seq_of(read_lines(site.path)[0])
    for segment in site.segments[-2:-1]:
        # No overlap tells any more where it ended.
        lines = [line for line in read_lines(segment) if line.endswith(b'"}')]
        write_lines(segment, [line for line in lines if seq_of(line) < seq])
    site.path.unlink()
    return seq


def empty(site: Site) -> int:
    """Replace the trail by an empty one (8)."""
    for segment in segments_of(site.path):
        segment.unlink()
    site.path.write_bytes(b"")
    site.baseline.unlink(missing_ok=True)
    return 0


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
    next_seq = seq_of(read_lines(site.segments[1])[0])
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
    lines[-1] = changed(lines[-1], kind="system.prune", detail=detail)
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
    shutil.copy(site.older / site.baseline.name, site.baseline)
    return _next_seq(site.baseline)


def _next_seq(baseline: Path) -> int:
    header = msgspec.json.decode(baseline.read_bytes().splitlines()[0])
    return int(header["next_seq"])


def remove_all_closed_segments(site: Site) -> int:
    """Leave the live segment and what is kept of pruned records."""
    for segment in segments_of(site.path):
        segment.unlink()
    return _next_seq(site.baseline)


def leave_the_baseline_alone(site: Site) -> int:
    """Leave no record but what is kept of pruned ones."""
    site.path.write_bytes(b"")
    return remove_all_closed_segments(site)


def put_all_but_the_baseline_back(site: Site) -> int:
    """Put the log as it was before the last prune beside what that kept."""
    for segment in site.segments:
        segment.unlink()
    for older in site.older.glob("audit.log*"):
        if older.name != site.baseline.name:
            shutil.copy(older, site.path.parent)
    return 0


ATTACKS: tuple[Attack, ...] = (
    *map(_in_the_middle, record_attacks.IN_THE_MIDDLE),
    edit_and_chain_anew,
    delete_a_segment,
    swap_segments,
    replay_a_prune,
    truncate,
    remove_the_live_segment,
    empty,
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
    remove_all_closed_segments,
    leave_the_baseline_alone,
    put_all_but_the_baseline_back,
)
"""Attacks on what is kept of pruned records."""
