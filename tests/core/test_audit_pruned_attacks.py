# SPDX-License-Identifier: MIT
"""Attacks on a trail that was pruned twice, by someone with copies but without key."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hsm_core.errors import AuditTamperedError
from tests.core.audit_support import (
    copy_of,
    events,
    fill,
    open_log,
    opened,
    verified,
)

BASELINE = "audit.log.baseline"
STAGED = "audit.log.baseline.new"


@dataclass(frozen=True, slots=True)
class Copies:
    """The trail as it is, and copies from before each of its two prunes."""

    path: Path
    whole: Path
    once: Path

    def put(self, origin: Path, name: str, as_name: str = "") -> None:
        """Put a file of an older copy in its place, or in another's."""
        shutil.copy2(origin.with_name(name), self.path.with_name(as_name or name))

    def closed(self) -> list[Path]:
        """Return the closed segments."""
        return sorted(self.path.parent.glob("audit.log.0*"))


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    """Give a trail that begins at 40, and copies that begin at 20 and at 0."""
    path = tmp_path / "log" / "audit.log"
    with opened(path, segment_bytes=4096) as log:
        fill(log, 60, one_by_one=True)
    whole = copy_of(path, tmp_path / "whole")
    with opened(path, segment_bytes=4096) as log:
        assert log.prune(25, "first")
        fill(log, 20, one_by_one=True)
    once = copy_of(path, tmp_path / "once")
    with opened(path, segment_bytes=4096) as log:
        assert log.prune(45, "second")
        fill(log, 20, one_by_one=True)
        assert (log.first_seq, len(events(log))) == (40, 62)
    return Copies(path, whole, once)


def _older_baseline(copies: Copies) -> None:
    copies.put(copies.once, BASELINE)


def _no_baseline(copies: Copies) -> None:
    copies.path.with_name(BASELINE).unlink()


def _one_segment_more(copies: Copies) -> None:
    copies.closed()[0].unlink()


def _all_closed_segments(copies: Copies) -> None:
    for segment in copies.closed():
        segment.unlink()


def _everything_but_the_baseline(copies: Copies) -> None:
    _all_closed_segments(copies)
    copies.path.write_bytes(b"")


def _whole_trail_with_the_last_baseline(copies: Copies) -> None:
    for found in copies.whole.parent.iterdir():
        copies.put(copies.whole, found.name)
    for segment in copies.closed():
        if not copies.whole.with_name(segment.name).exists():
            segment.unlink()


@pytest.mark.parametrize(
    "attack",
    [
        _older_baseline,
        _no_baseline,
        _one_segment_more,
        _all_closed_segments,
        _everything_but_the_baseline,
        _whole_trail_with_the_last_baseline,
    ],
)
def test_a_beginning_that_no_prune_made_is_refused(
    copies: Copies, attack: Callable[[Copies], None]
) -> None:
    """Whatever was put back or removed, both name it, and nothing is written."""
    attack(copies)
    before = {p.name: p.read_bytes() for p in copies.path.parent.iterdir()}

    for refuse in (open_log, verified):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(copies.path)
        assert caught.value.facts["reason"] in {"pruned", "shorter"}
    assert before == {p.name: p.read_bytes() for p in copies.path.parent.iterdir()}


def _old_staged_baseline(copies: Copies) -> None:
    copies.put(copies.once, BASELINE, STAGED)


def _staged_baseline_of_now(copies: Copies) -> None:
    copies.put(copies.path, BASELINE, STAGED)


def _removed_segments_are_back(copies: Copies) -> None:
    for segment in copies.once.parent.glob("audit.log.0*"):
        copies.put(copies.once, segment.name)


@pytest.mark.parametrize(
    "attack",
    [_old_staged_baseline, _staged_baseline_of_now, _removed_segments_are_back],
)
def test_what_a_prune_has_left_behind_counts_for_nothing(
    copies: Copies, attack: Callable[[Copies], None]
) -> None:
    """Old files that are put back neither change the trail nor stop a start."""
    attack(copies)

    found = verified(copies.path)
    assert (found.first_seq, found.records) == (40, 62)
    with opened(copies.path, segment_bytes=4096) as log:
        assert (log.first_seq, len(events(log))) == (40, 62)
    assert not copies.path.with_name(STAGED).exists()
    assert all(int(segment.name[-16:]) >= 40 for segment in copies.closed())


def test_a_baseline_of_a_prune_to_come_counts_for_nothing(copies: Copies) -> None:
    """Its record is not in the trail yet, so a start throws it away."""
    copies.put(copies.path, BASELINE, "future")
    _whole_trail_with_the_last_baseline(copies)
    copies.path.with_name(BASELINE).unlink()
    copies.path.with_name("future").rename(copies.path.with_name(STAGED))

    assert verified(copies.path).records == 60
    with opened(copies.path, segment_bytes=4096) as log:
        assert (log.first_seq, len(events(log))) == (0, 60)
    assert not copies.path.with_name(STAGED).exists()
