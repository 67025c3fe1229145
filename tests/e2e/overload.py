# SPDX-License-Identifier: MIT
"""
Asks a server for ten times what it can do, and more, and says what its users notice.

A server of two front ends, with the limits that it has by default, is flooded: with
forged tokens from one address and from many, and by callers who ask for ten times what
they may. Then ten thousand connections do nothing, and a thousand nearly nothing. All
the while two users sign and read; each answer is looked at. At last the trail is
verified.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from tests.e2e.flooding import Crowd, Flood, begin, raise_descriptors
from tests.e2e.loaded import Bounds, Phase, Scene
from tests.e2e.site import Site

LOADS: Final = ("forged", "spread", "callers", "crowd")
"""Names of the loads, on the command line."""

_CALLERS: Final = 3
"""They may ask for 300 quick operations a second, and ask for what is answered."""

_SPREAD: Final = tuple(f"127.0.2.{number}" for number in range(1, 65))
_CROWDED: Final = tuple(f"127.0.1.{number}" for number in range(1, 41))
_PER_ADDRESS: Final = 1000


@dataclass(frozen=True, kw_only=True)
class Told:
    """
    What the command line says.

    Attributes:
        seconds: How long each load lasts.
        idle: Connections that do nothing.
        slow: Connections that do nearly nothing.
        refusals: Fewest forged tokens of one address that are answered each second.
        figures: Where the figures go, as JSON.
        loads: Some of `LOADS`.
    """

    seconds: float
    idle: int
    slow: int
    refusals: float
    figures: Path | None
    loads: Sequence[str]


def _flood(
    flood: Flood, expected: set[str], least: float = 0.0
) -> Callable[[Phase], None]:
    """Return a load that floods, and notes what was answered otherwise than it may."""

    def load(phase: Phase) -> None:
        output, _ = begin(flood).communicate(timeout=flood.seconds + 60)
        done = json.loads(output)
        phase.answers, phase.seconds = done["answers"], done["seconds"]
        phase.facts["lost"] = done["lost"]
        if other := set(phase.answers) - expected:
            phase.broken.append(f"answers {sorted(other)}")
        if phase.per_second < least:
            phase.broken.append(f"fewer than {least:,.0f} answers a second")

    return load


def _crowd(scene: Scene, crowd: Crowd, seconds: float) -> Callable[[Phase], None]:
    """Return a load that holds connections, once they are there."""

    def load(phase: Phase) -> None:
        began, before = time.monotonic(), scene.connections()
        memory = scene.resident()
        process = begin(crowd)
        assert process.stdout is not None
        refused = json.loads(process.stdout.readline())["refused"]
        phase.facts["seconds until all were there"] = time.monotonic() - began
        time.sleep(seconds)
        phase.facts["connections"] = scene.connections() - before
        phase.grown = scene.resident() - memory
        output, _ = process.communicate(timeout=120)
        done = json.loads(output)
        phase.facts |= {"idle": done["idle"], "cut off": done["cut_off"]}
        if refused or done["idle"] < crowd.idle:
            phase.broken.append("connections were refused or lost")
        if not done["cut_off"]:
            phase.broken.append("slow heads were not cut off")

    return load


def _loads(
    site: Site, scene: Scene, told: Told
) -> dict[str, tuple[str, Callable[[Phase], None]]]:
    """Return title and work of each load."""
    port, bundle = scene.server.port, scene.bundle
    basic = Flood(port=port, bundle=bundle, seconds=told.seconds)
    spread = replace(basic, addresses=_SPREAD)
    tokens = tuple(site.token(f"user-{n}", "operator") for n in range(_CALLERS))
    callers = replace(
        basic,
        addresses=("127.0.3.1", "127.0.3.2"),
        tokens=tokens,
        connections=10 * _CALLERS,
    )
    crowd = Crowd(
        port=port, bundle=bundle, idle=told.idle, slow=told.slow, addresses=_CROWDED
    )
    refused = {"401", "429"}
    return {
        "forged": (
            "forged tokens, one address",
            _flood(basic, refused, told.refusals),
        ),
        "spread": (f"forged tokens, {len(_SPREAD)} addresses", _flood(spread, refused)),
        "callers": ("callers who ask for too much", _flood(callers, {"200", "429"})),
        "crowd": (
            f"{told.idle:,} idle and {told.slow:,} slow connections",
            _crowd(scene, crowd, told.seconds),
        ),
    }


def _run(site: Site, told: Told, bounds: Bounds) -> list[Phase]:
    """Load a server in every way that is asked for; return what came of each."""
    held = told.idle + told.slow
    server = site.start(
        *("--workers", "2", "--client-auth", "optional", "--log-level", "warning"),
        *("--rate-limit-per-second", "100", "--address-limit-per-second", "100"),
        *("--lockout-after", "20", "--audit-sync", "bounded"),
        *("--max-connections", str(2 * held + 1000)),
        *("--max-connections-per-address", str(_PER_ADDRESS)),
    )
    with server:
        scene = Scene(site, server, bounds)
        phases = [scene.calm]
        for name, (title, load) in _loads(site, scene, told).items():
            if name in told.loads:
                phases.append(scene.measured(title, load))
        scene.stop()
        server.stop()
    site.verify_log()
    return phases


def _table(phases: Sequence[Phase]) -> str:
    lines = []
    for phase in phases:
        lines += [
            f"{phase.name} ({phase.seconds:.0f} s)",
            f"  load: {phase.per_second:,.0f} answers/s {phase.answers or ''}",
            f"  users: {phase.users}",
            f"  elsewhere p50 {1000 * phase.p50:.1f} ms, p99 {1000 * phase.p99:.1f} ms;"
            f" close by p99 {1000 * phase.p99_close:.1f} ms;"
            f" recovery {phase.recovery:.1f} s",
            f"  memory {phase.grown / 1024**2:+.1f} MiB, busy {phase.busy:.1f} s,"
            f" {phase.facts}",
            *(f"  BROKEN: {what}" for what in phase.broken),
        ]
    return "\n".join(lines)


def _told(words: Sequence[str]) -> Told:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.overload")
    parser.add_argument("--seconds", type=float, default=45.0, help="of each load")
    parser.add_argument("--idle", type=int, default=10_000, help="connections")
    parser.add_argument("--slow", type=int, default=1_000, help="connections")
    parser.add_argument("--refusals", type=float, default=0.0, help="fewest a second")
    parser.add_argument("--figures", type=Path, help="file for the figures, as JSON")
    parser.add_argument("loads", nargs="*", default=LOADS, help=" ".join(LOADS))
    told = Told(**vars(parser.parse_args(words)))
    if unknown := set(told.loads) - set(LOADS):
        parser.error(f"there is no load {', '.join(sorted(unknown))}")
    return told


def main(words: Sequence[str]) -> int:
    """Load a server as the command line says; return 1 where a bound is broken."""
    told = _told(words)
    needed = told.idle + told.slow + 200
    if (most := raise_descriptors()) < needed:
        sys.stderr.write(f"{needed} open files are needed; {most} may be open.\n")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        phases = _run(Site(Path(folder) / "site"), told, Bounds())
    sys.stdout.write(_table(phases) + "\n")
    if told.figures is not None:
        figures = json.dumps([asdict(phase) for phase in phases], indent=1)
        told.figures.write_text(figures)
    return 1 if any(phase.broken for phase in phases) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
