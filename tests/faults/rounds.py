# SPDX-License-Identifier: MIT
"""The ways in which a server is killed, each followed by a start and a comparison."""

import random
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import hsm_core
from tests.e2e.processes import ServerProcess
from tests.faults import blows
from tests.faults.crew import Crew
from tests.faults.expectation import check

VICTIMS: Final = {
    "server": 8,
    "vault": 4,
    "front end": 3,
    "tls_manager": 1,
    "vault, stopped": 2,
    "front end, stopped": 1,
    "vault, hanging": 1,
}
"""What a round may hurt, and how often it does, of twenty."""

_DYING: Final = Path(__file__).with_name("dying_server.py")
_POINT: Final = re.compile(r"\bfailpoint\(\s*\"([a-z_.]+)\"")
_ELSEWHERE: Final = (
    "acceptance.",
    "audit.heal.",
    "audit.outage",
    "audit.prune.",
    "audit.verify.",
    "ledger.",
    "purge.",
    "sqlite.",
)
_LOAD_SECONDS: Final = 45.0
_KILLED: Final = -9


def failpoints() -> list[str]:
    """
    Return the names of all points at which a server can be killed on purpose.

    Those of the offline verifier, which writes nothing, are no business of a server;
    those that a sound disk, young records and keys, and files don't lead to, are swept
    by the tests of core.
    """
    package = Path(hsm_core.__file__).parent
    names = {
        name
        for module in package.rglob("*.py")
        for name in _POINT.findall(module.read_text())
        if not name.startswith(_ELSEWHERE)
    }
    return sorted(names)


def random_round(crew: Crew, chance: random.Random) -> str:
    """
    Hurt a busy server, or one of its processes, at a random moment.

    Returns:
        Which of `VICTIMS` it was.

    Raises:
        Violation: Something that was acknowledged is lost, or something is half-done.
    """
    chosen = chance.choices(list(VICTIMS), list(VICTIMS.values()))[0]
    if chosen == "server":
        server_round(crew, chance)
    else:
        part_round(crew, chance, chosen)
    return chosen


def server_round(crew: Crew, chance: random.Random) -> None:
    """
    Kill a busy server at a random moment; now and then one that is only starting.

    Raises:
        Violation: As `random_round`.
    """
    if crew.server is None and chance.random() < 0.5:
        crew.kill_while_starting(chance.uniform(0.0, 1.2))
    server = _running(crew)
    crew.work_until_killed(server, chance.uniform(0.05, 1.0))


def part_round(crew: Crew, chance: random.Random, chosen: str) -> None:
    """
    Hurt one process of a busy server, which must come back while the server goes on.

    That is one of `VICTIMS`, but not the server as a whole.

    Raises:
        Violation: As `random_round`, or not all is well again in time.
    """
    server = _running(crew)
    kind, _, how = chosen.partition(", ")
    pid = blows.victim(server.pid, kind, chance)
    strikes: dict[str, Callable[[], None]] = {
        "": partial(blows.kill, pid),
        "stopped": partial(blows.stop_for, pid, chance.uniform(0.3, 3.0)),
        "hanging": partial(blows.stop_until_killed, pid),
    }
    crew.work_through(strikes[how], chance.uniform(0.05, 1.0))
    crew.settle_and_examine(server, everything=False)


def _running(crew: Crew) -> ServerProcess:
    """Return the server that runs; start and examine one if none does."""
    server = crew.server
    if server is None:
        server = crew.start()
        crew.settle_and_examine(server, everything=False)
    return server


def failpoint_round(crew: Crew, point: str, chance: random.Random) -> None:
    """
    Have a server kill itself at a named point, then start one and compare.

    Raises:
        Violation: As `random_round`, or the point was never reached.
    """
    _arrange(crew, point, chance)
    times = 1 if point.startswith(_ONCE) else chance.randint(1, 6)
    server = crew.start_to_die(_command(point, times))
    if server is not None:
        with server:
            _provoke(crew, point, server)
    with crew.start() as server:
        crew.settle_and_examine(server, everything=False)
        crew.work_until_killed(server, 0.1)


def finale(crew: Crew) -> None:
    """
    Compare everything once more, stop in order, and verify with the real client.

    Raises:
        Violation: As `random_round`, or the end was not clean.
    """
    with crew.server or crew.start() as server:
        crew.settle_and_examine(server, everything=True)
        status = server.stop()
        check(
            status == 0, "a server in order did not end with 0", server.output[-2000:]
        )
    crew.check_journals()
    crew.site.verify_log()


_ONCE: Final = (
    "audit.before_clean_mark",
    "audit.create.",
    "audit.open.",
    "audit.repair.",
    "recovery.",
)
"""Points that a start, or a stop, passes once."""


def _arrange(crew: Crew, point: str, chance: random.Random) -> None:
    """Bring about what a start must find to pass a point."""
    if point == "audit.repair.after_rewrite":
        _die_at(crew, "audit.after_write", chance.randint(5, 9))
    elif point.startswith("audit.repair."):
        crew.tear_trail()
    if point.startswith("recovery."):
        _die_at(crew, "mutation.after_intent", chance.randint(1, 3))


def _die_at(crew: Crew, point: str, times: int) -> None:
    """Let a running server kill itself at a point that leaves work to a start."""
    server = crew.start_to_die(_command(point, times))
    check(server is not None, "a start passed a point too often", point)
    assert server is not None
    with server:
        _provoke(crew, point, server)


def _provoke(crew: Crew, point: str, server: ServerProcess) -> None:
    """Make a running server pass a point."""
    working = crew.work(server, _LOAD_SECONDS)
    if point == "audit.before_clean_mark":
        server.terminate()
    crew.finish(working)
    check(not server.is_running or _is_ending(server), "never reached", point)
    status = server.wait()
    check(status == _KILLED, "another end than by the point", point, status)


def _is_ending(server: ServerProcess) -> bool:
    """Whether a server that cut its clients off comes to its end soon."""
    try:
        server.wait(10)
    except TimeoutError:
        return False
    return True


def _command(point: str, times: int) -> list[str]:
    return [sys.executable, str(_DYING), point, str(times)]
