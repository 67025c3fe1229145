# SPDX-License-Identifier: MIT
"""
All that befalls a server in a soak, and where it must be seen.

Each fault is brought about, and its cause goes away again; what comes after that is the
server's own affair, but for a start of one that was ended.
"""

import contextlib
import os
import random
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tests.e2e.family import members
from tests.e2e.https import Client, NoAnswerError
from tests.e2e.processes import ServerProcess
from tests.faults import blows
from tests.faults.crew import Crew
from tests.faults.expectation import check
from tests.faults.hostile import HOSTILE, Hostile
from tests.faults.sinks import SINKS
from tests.faults.watch import Evidence

_BROKEN_SECONDS: Final = 3.0
_DRAIN_SECONDS: Final = 12.0
_SCARCE_SECONDS: Final = 2.0
_SPARE_BYTES: Final = 1024 * 1024
_LARGE: Final = b"\0" * (24 * 1024 * 1024)


@dataclass
class Scene:
    """
    Where faults happen.

    Attributes:
        has_disk: Whether the trail has a small disk of its own.
    """

    crew: Crew
    chance: random.Random
    has_disk: bool

    @property
    def server(self) -> ServerProcess:
        """The server that runs."""
        server = self.crew.server
        if server is None:
            raise AssertionError("A server runs.")
        return server

    def victim(self, kind: str) -> int:
        """Return the id of one process."""
        if kind == "supervisor":
            return self.server.pid
        return blows.victim(self.server.pid, kind, self.chance)


@dataclass(frozen=True)
class Fault:
    """
    One way in which things go wrong.

    Attributes:
        strike: Brings it about, and takes its cause away.
        is_seen: Whether health, metrics and log tell of it as they should.
    """

    name: str
    strike: Callable[[Scene], None]
    is_seen: Callable[[Evidence], bool]


def faults(kind: str, *, has_disk: bool) -> list[Fault]:
    """
    Return all faults that can be brought about here.

    Args:
        kind: ``filesystem`` or ``sqlite``.

        has_disk: Whether the trail has a small disk of its own.
    """
    return [*_ended(), *_stopped(), *_scarce(), *_hostile(), *_broken(kind, has_disk)]


def _ended() -> Iterator[Fault]:
    yield Fault("vault killed", _kill("vault"), _is_restart("vault"))
    yield Fault("front end killed", _kill("front end"), _is_restart("front"))
    yield Fault("server killed", _kill_server, _is_new_start)
    yield Fault("server stopped in order", _stop_server, _is_orderly_end)
    yield Fault("reload", _reload, _is_reload)


def _stopped() -> Iterator[Fault]:
    # Shorter than what counts as hanging; only who waits for them notices.
    yield Fault("vault asleep", _put_to_sleep("vault"), _is_nothing)
    yield Fault("front end asleep", _put_to_sleep("front end"), _is_nothing)
    yield Fault("supervisor asleep", _put_to_sleep("supervisor"), _is_nothing)
    yield Fault("vault hangs", _hang("vault"), _is_hang("vault"))
    yield Fault("front end hangs", _hang("front end"), _is_hang("front"))


def _scarce() -> Iterator[Fault]:
    yield Fault("no descriptors in the vault", _few_files("vault"), _is_told)
    yield Fault("no descriptors in a front end", _few_files("front end"), _is_told)
    yield Fault("no memory in the vault", _little_memory("vault"), _is_told)
    yield Fault("no memory in a front end", _little_memory("front end"), _is_told)


def _hostile() -> Iterator[Fault]:
    for name, act in HOSTILE.items():
        seen = _are_strangers if name == "strangers" else _is_nothing
        yield Fault(name, partial(_attack, act), seen)


def _broken(kind: str, has_disk: bool) -> Iterator[Fault]:
    absent = set[str]()
    if not has_disk:
        absent.add("full")
    if shutil.which("strace") is None:
        absent |= _INJECTED
    if kind == "sqlite":
        absent |= _NOT_WITH_SQLITE
    for name in SINKS:
        if name not in absent:
            seen = _is_nothing_or_trail if name in _HEALED_AT_ONCE else _is_broken_trail
            yield Fault(f"trail: {name}", partial(_break_trail, name), seen)


_INJECTED: Final = frozenset(
    {"write fails", "write is short", "sync fails", "sync hangs"}
)
_NOT_WITH_SQLITE: Final = frozenset({"deleted", "moved", "replaced", "write is short"})
"""
What happens to no database that is open.

SQLite believes a short write that is told it, and writes the rest; the injected one
writes nothing, which is a disk that lies.
"""

_HEALED_AT_ONCE: Final = frozenset({"deleted", "moved", "replaced", "write is short"})
"""What a trail may put right before anybody is refused."""


def _kill(kind: str) -> Callable[[Scene], None]:
    return lambda scene: blows.kill(scene.victim(kind))


def _kill_server(scene: Scene) -> None:
    scene.server.kill()
    scene.crew.start_again()


def _stop_server(scene: Scene) -> None:
    server = scene.server
    server.terminate()
    status = server.wait(_DRAIN_SECONDS)
    check(
        status == 0, "an end in order has another status", status, server.output[-2000:]
    )
    scene.crew.start_again()


def _reload(scene: Scene) -> None:
    os.kill(scene.server.pid, signal.SIGHUP)


def _put_to_sleep(kind: str) -> Callable[[Scene], None]:
    return lambda scene: blows.stop_for(
        scene.victim(kind), scene.chance.uniform(1.5, 3.0)
    )


def _hang(kind: str) -> Callable[[Scene], None]:
    return lambda scene: blows.stop_until_killed(scene.victim(kind))


def _few_files(kind: str) -> Callable[[Scene], None]:
    """Return what leaves a process no descriptor but those that it has."""
    return lambda scene: _limited(
        scene.victim(kind),
        resource.RLIMIT_NOFILE,
        3,
        lambda: time.sleep(_SCARCE_SECONDS),
    )


def _little_memory(kind: str) -> Callable[[Scene], None]:
    """Return what leaves a process little memory while much is asked of it."""

    def strike(scene: Scene) -> None:
        pid = scene.victim(kind)
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + _SPARE_BYTES
        _limited(pid, resource.RLIMIT_AS, limit, partial(_ask_for_much, scene))

    return strike


def _limited(pid: int, which: int, limit: int, during: Callable[[], None]) -> None:
    soft, hard = resource.prlimit(pid, which)
    resource.prlimit(pid, which, (limit, hard))
    try:
        during()
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, which, (soft, hard))


def _ask_for_much(scene: Scene) -> None:
    """Send large bodies, from several clients at once, for a while."""
    until = time.monotonic() + _SCARCE_SECONDS
    answers: list[tuple[int, bytes]] = []

    def ask() -> None:
        with scene.crew.site.client(
            scene.server.port, "glutton", "operator", timeout_seconds=10.0
        ) as client:
            while time.monotonic() < until:
                with contextlib.suppress(NoAnswerError):
                    answers.append(_encrypt(client))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wrong = [body for status, body in answers if status not in {200, 503}]
    check(not wrong, "large bodies had another answer", *wrong[:3])


def _encrypt(client: Client) -> tuple[int, bytes]:
    answer = client.request(
        "POST",
        "/api/v1/keys/shared-seal/encrypt",
        _LARGE,
        {"Content-Type": "application/octet-stream"},
    )
    return answer.status, b"" if answer.status == 200 else answer.body


def _attack(act: Hostile, scene: Scene) -> None:
    act(scene.crew.site, scene.server.port, scene.chance)


def _break_trail(name: str, scene: Scene) -> None:
    live = scene.crew.site.audit_log
    if scene.crew.site.kind == "sqlite" and name != "full":
        live = live.with_name(f"{live.name}-wal")
    (vault,) = members(scene.server.pid, "vault")
    with SINKS[name](vault, live):
        time.sleep(_BROKEN_SECONDS)


def _is_restart(process: str) -> Callable[[Evidence], bool]:
    def seen(evidence: Evidence) -> bool:
        return evidence.rose(_restarts(process)) >= 1 and evidence.said("ended") >= 1

    return seen


def _restarts(process: str) -> str:
    return f'ferrohsm_process_restarts_total{{process="{process}"}}'


def _is_hang(process: str) -> Callable[[Evidence], bool]:
    is_restart = _is_restart(process)

    def seen(evidence: Evidence) -> bool:
        # Nobody can tell of a front end that hangs what only it could say.
        was_told = evidence.was_unwell or process != "vault"
        killed = evidence.said("ended", status="SIGKILL")
        return is_restart(evidence) and was_told and killed > 0

    return seen


def _is_new_start(evidence: Evidence) -> bool:
    return evidence.said("open") == 1


def _is_orderly_end(evidence: Evidence) -> bool:
    return evidence.said("draining") == 1 == evidence.said("stopped")


def _is_reload(evidence: Evidence) -> bool:
    # Of the vault and of the TLS manager: front ends read no files.
    return evidence.said("reloaded") == 2


def _is_nothing(evidence: Evidence) -> bool:
    """Whether the service went on as if nothing had been."""
    return not any(sight.status == 503 for sight in evidence.sights)


def _are_strangers(evidence: Evidence) -> bool:
    return evidence.rose("ferrohsm_auth_jwt_failure_total") > 0 and _is_nothing(
        evidence
    )


def _is_told(evidence: Evidence) -> bool:
    """Whether whoever was refused finds the reason in the log."""
    reasons = ("unavailable", "ended", "accepting fails", "loop", "policy refused")
    return not evidence.was_unwell or any(map(evidence.said, reasons))


def _is_broken_trail(evidence: Evidence) -> bool:
    return (
        evidence.was_unwell
        and evidence.rose("ferrohsm_audit_failures_total") > 0
        and evidence.said("unavailable") > 0
    )


def _is_nothing_or_trail(evidence: Evidence) -> bool:
    return not evidence.was_unwell or _is_broken_trail(evidence)
