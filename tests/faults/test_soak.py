# SPDX-License-Identifier: MIT
"""The soak in its short form; the session ``soak`` runs it for ten minutes."""

from pathlib import Path

import pytest

from tests.faults.expectation import Violation
from tests.faults.growth import Sample, check_growth, measure, without_first
from tests.faults.soak import run
from tests.faults.watch import Evidence, Sight

MIB = 1024 * 1024


def test_faults_under_load_break_no_promise(tmp_path: Path) -> None:
    """
    A busy server to which one thing after the other happens recovers by itself.
    """
    tally = run(
        tmp_path,
        minutes=0.25,
        seed="short",
        kind="filesystem",
        period=4.0,
        least=3,
    )

    assert 0 == tally.failed
    assert tally.passed > 4


def test_lack_of_memory_breaks_no_promise(tmp_path: Path) -> None:
    """
    A process whose memory is out is replaced; nobody is told that the server is broken.
    """
    tally = run(
        tmp_path,
        minutes=0.1,
        seed="short",
        kind="filesystem",
        period=4.0,
        only="no memory",
        least=2,
    )

    assert 0 == tally.failed
    assert tally.passed > 3


@pytest.mark.parametrize(
    "leak",
    [
        {"rss": 2 * MIB},
        {"threads": 1},
        {"descriptors": 1},
    ],
)
def test_a_leak_is_noticed(leak: dict[str, int]) -> None:
    """
    What grows from sample to sample is no noise.
    """
    plain = {"rss": 60 * MIB, "threads": 9, "descriptors": 20}
    samples = [
        Sample("vault", 7, **{n: v + leak.get(n, 0) * i for n, v in plain.items()})
        for i in range(30)
    ]

    with pytest.raises(Violation, match="a process grows"):
        check_growth(measure(samples))


def test_ups_and_downs_are_noise() -> None:
    """
    Connections that come and go, and memory that is used again, are no growth.
    """
    samples = [
        Sample("vault", 7, (60 + i % 4) * MIB, 9 + i % 2, 20 + i % 5) for i in range(30)
    ]
    found = measure(samples)

    assert ["every vault", "vault 7"] == [growth.of for growth in found]
    check_growth(found)


def test_the_first_minute_is_no_growth() -> None:
    """
    A process that takes what it needs, and then no more, does not grow; a leak does.
    """
    young = [Sample("vault", 7, (60 + 8 * i) * MIB, 9, 20) for i in range(6)]
    warm = [Sample("vault", 7, 100 * MIB, 9, 20)] * 12
    leaking = [Sample("vault", 7, (100 + i) * MIB, 9, 20) for i in range(30)]

    assert warm == without_first([*young, *warm])
    with pytest.raises(Violation, match="a process grows"):
        check_growth(measure(without_first([*young, *leaking])))


def test_evidence_counts_from_a_moment_on() -> None:
    """
    A counter that had its value before has not risen.
    """
    sights = [Sight(1.0, 200, True, {"restarts": 3.0}), Sight(2.0, 0, False, {})]
    evidence = Evidence(
        {"restarts": 2.0}, sights, [{"event": "ended", "child": "vault"}]
    )

    assert 1.0 == evidence.rose("restarts")
    assert evidence.was_unwell
    assert 1 == evidence.said("ended", child="vault")
    assert 0 == evidence.said("ended", child="front1")
