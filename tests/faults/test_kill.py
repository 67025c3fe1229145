# SPDX-License-Identifier: MIT
"""The kill loop in its short form; the session ``kill`` takes it to all points."""

import random
import sys
import time
from pathlib import Path

import pytest

from tests.faults.crew import Crew
from tests.faults.kill_loop import run
from tests.faults.rounds import finale, part_round

DYING_VAULT = Path(__file__).with_name("dying_vault.py")
POINT_SECONDS = 90.0
KILLS, POINTS = 4, 6


@pytest.mark.parametrize("kind", ["filesystem", "sqlite"])
def test_nothing_is_lost_or_half_done(tmp_path: Path, kind: str) -> None:
    """
    A server killed at random moments, and at some points, keeps all it promised.
    """
    seed = str(random.randrange(2**32))

    tally = run(tmp_path, kills=KILLS, seed=seed, kind=kind, points=POINTS)

    named = POINTS + 2 if kind == "filesystem" else 0
    assert (KILLS + 1 + named, 0, seed) == (tally.passed, tally.failed, seed)


def test_a_server_survives_its_processes(tmp_path: Path) -> None:
    """
    Each kind is killed, or stopped, while the server and its clients go on.
    """
    chance = random.Random("parts")
    victims = (
        "vault",
        "front end",
        "tls_manager",
        "vault, stopped",
        "front end, stopped",
    )
    with Crew(tmp_path / "site", "parts") as crew:
        for victim in victims:
            part_round(crew, chance, victim)
        finale(crew)

        assert 1 == len(crew.starts)
        assert len(victims) == len(crew.recoveries)


@pytest.mark.parametrize(
    ("point", "passes"),
    [
        ("audit.after_write", 20),
        ("mutation.after_intent", 20),
        ("mutation.after_store", 20),
        ("approval.after_store", 5),
        ("approval.reserved", 2),
    ],
)
def test_a_vault_may_die_at_any_point(tmp_path: Path, point: str, passes: int) -> None:
    """
    A vault killed between two steps of a change is replaced, and nothing is half-done.
    """
    marker = tmp_path / "died"
    words = [sys.executable, str(DYING_VAULT), point, str(passes), str(marker)]
    with Crew(tmp_path / "site", point, command=words) as crew:
        server = crew.start()
        crew.work_through(lambda: wait_for(marker), 0.0)
        crew.settle_and_examine(server, everything=True)
        status = server.stop()

        assert 0 == status, server.output[-2000:]
        assert 1 == server.output.count('"status": "SIGKILL"')


def wait_for(marker: Path) -> None:
    """Wait until a file is there."""
    until = time.monotonic() + POINT_SECONDS
    while not marker.exists():
        assert time.monotonic() < until
        time.sleep(0.02)
