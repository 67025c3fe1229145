# SPDX-License-Identifier: MIT
"""Which files belong to a trail, told by their names alone."""

from __future__ import annotations

import random

import pytest

from hsm_core._internal.stores.filesystem.audit_files import (
    ClosedName,
    FragmentName,
    baseline_name,
    closed_names,
    fragment_names,
    head_name,
    lock_name,
    new_name,
    reserve_name,
)

LIVE = "audit.log"
CLOSED = [ClosedName(1, 0), ClosedName(2, 40), ClosedName(10, 9 * 10**15)]
FRAGMENTS = [FragmentName(0, 7), FragmentName(9, 5), FragmentName(10, 1)]
NAMES = [name.of(LIVE) for name in CLOSED] + [name.of(LIVE) for name in FRAGMENTS]


def test_the_names_of_a_trail() -> None:
    """They are those of the page about the format, so that old trails are found."""
    assert [
        "audit.log.head",
        "audit.log.baseline",
        "audit.log.lock",
        "audit.log.new",
        "audit.log.reserve",
    ] == [
        name(LIVE)
        for name in (head_name, baseline_name, lock_name, new_name, reserve_name)
    ]
    assert "audit.log.00000002.0000000000000040" == CLOSED[1].of(LIVE)
    assert "audit.log.torn-9-5" == FRAGMENTS[1].of(LIVE)


def test_segments_and_fragments_are_found_in_the_order_of_the_trail() -> None:
    """Whatever order a folder is listed in, numbers count, and not letters."""
    names = random.Random(1).sample(NAMES, len(NAMES))

    assert CLOSED == closed_names(LIVE, names)
    assert FRAGMENTS == fragment_names(LIVE, names)


@pytest.mark.parametrize("live", ["other.log", "audit.lo", "log", "xaudit.log"])
def test_files_of_another_trail_are_not_among_them(live: str) -> None:
    """Two trails may lie in one folder, also if their names are alike."""
    assert [] == closed_names(live, NAMES)
    assert [] == fragment_names(live, NAMES)


@pytest.mark.parametrize(
    "name",
    [
        "audit.log",
        "audit.log.1.0",
        "audit.log.00000001.000000000000000",
        "audit.log.00000001.00000000000000000",
        "audit.log.00000001.0000000000000000.gz",
        "audit.log.00000001.0000000000000000\n",
        "audit.log.0000000x.0000000000000000",
        "audit.log.torn-01-5",
        "audit.log.torn-1-05",
        "audit.log.torn--1-5",
        "audit.log.torn-1-5x",
        f"audit.log.torn-1-{10**16}",
    ],
)
def test_what_has_another_form_is_no_file_of_the_trail(name: str) -> None:
    """A name is read in the one form in which it is written."""
    assert [] == closed_names(LIVE, [name])
    assert [] == fragment_names(LIVE, [name])
