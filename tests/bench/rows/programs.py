# SPDX-License-Identifier: MIT
"""Programs that sign over PKCS#11, with an embedded HSM and with a server: P17."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import hsm_core
from hsm_core.algorithms import Algorithm
from tests.bench.figures import Absent, Finding, at_least, at_most
from tests.bench.harness import interleave
from tests.bench.peers.native import AbsentError, compiled_file
from tests.bench.processes import Worker, cpu_seconds, kinds_of
from tests.bench.rig import OWN, PATIENT, SOFTHSM, Rig, told
from tests.e2e.processes import program
from tests.e2e.site import Site

_PROGRAM: Final = Path(__file__).parents[1] / "pkcs11_program.py"
_PROGRAMS: Final = (1, 4)
_TURNS: Final = 5
_SIGNATURES: Final = 600
_MODULES: Final = Path("/usr/lib")
_START_SECONDS: Final = 60
_POLL_SECONDS: Final = 0.02
_EMBEDDED: Final = "EC-P256 sign over PKCS#11, embedded ÷ SoftHSM2"
_ONE_PROCESSOR: Final = f"{_EMBEDDED}, all on one processor"
_REMOTE: Final = "EC-P256 sign over PKCS#11 and HTTPS, signatures/s, 4 programs ÷ 1"


def pkcs11(rig: Rig) -> list[Finding]:
    """Return the cost of signatures of programs, beside SoftHSM2 in their process."""
    try:
        loop, module = (
            compiled_file("pkcs11_program", rig.place("loop"), "dl"),
            _module(),
        )
    except AbsentError as error:
        missing = (_EMBEDDED, _ONE_PROCESSOR, _REMOTE)
        return [Absent(what=what, why=str(error)) for what in missing]
    return [*_embedded(rig, loop, module), _remote(rig, loop, module)]


class _Program(Worker):
    """A process that signs as often as it is told."""

    def __init__(self, loop: Path, module: Path, socket: Path) -> None:
        address = {"P11_KIT_SERVER_ADDRESS": f"unix:path={socket}"}
        super().__init__(_PROGRAM, loop, module, environment=os.environ | address)
        self.answer()


def _embedded(rig: Rig, loop: Path, module: Path) -> list[Finding]:
    folder = rig.place("token")
    root = folder / "root.key"
    with hsm_core.open(folder / "hsm", root=root, create=True) as hsm:
        hsm.as_user("ada", roles=["operator"]).create("EC-P256", name="signer")
    words = ["--actor", "ada", "--roles", "operator", "pkcs11", "serve"]
    words += ["--embedded", str(folder / "hsm"), "--root-key", str(root)]
    with _token(folder, [*words, "--audit-sync", "bounded"], os.environ) as token:
        pid, socket = token
        with _Program(loop, module, socket) as busy:

            def sign(times: int) -> None:
                busy.begin(times)
                busy.answer()

            try:
                softhsm = rig.softhsm.signing(Algorithm.EC_P256)
            except AbsentError as error:
                missing = (_EMBEDDED, _ONE_PROCESSOR)
                return [Absent(what=what, why=str(error)) for what in missing]

            def compare(what: str) -> Finding:
                took = interleave(
                    {OWN: sign, SOFTHSM: softhsm},
                    turn_seconds=0.1,
                    clock=lambda: time.process_time() + cpu_seconds(pid, busy.pid),
                )
                return at_most(2.5, what, took[OWN] / took[SOFTHSM], note=told(took))

            free = compare(_EMBEDDED)
            with _on_one_processor(os.getpid(), pid, busy.pid):
                return [free, compare(_ONE_PROCESSOR)]


@contextmanager
def _on_one_processor(*pids: int) -> Iterator[None]:
    """Run all threads of processes on one processor."""
    every = os.sched_getaffinity(0)

    def bind(processors: set[int]) -> None:
        for pid in pids:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), processors)

    bind({max(every)})
    try:
        yield
    finally:
        bind(every)


def _remote(rig: Rig, loop: Path, module: Path) -> Finding:
    site = Site(rig.place("remote"))
    flags = ("--audit-sync", "bounded", "--log-level", "warning", *PATIENT)
    rates, notes = dict[int, float](), list[str]()
    with site.start(*flags) as server:
        site.cli(server.port, "create", "EC-P256", "--name", "signer")
        words = site.cli_words(server.port, "pkcs11", "serve")
        with _token(site.folder, words, site.environment()) as (pid, socket):
            parts = {"hsm-cli": (pid,), "server": tuple(kinds_of(server.pid))}
            for count in _PROGRAMS:
                with ExitStack() as stack:
                    busy = [
                        stack.enter_context(_Program(loop, module, socket))
                        for _ in range(count)
                    ]
                    rates[count], used = _load(busy, parts)
                notes.append(f"{count}: {rates[count]:.0f}/s, {told(used)} for each")
        server.stop()
    one, four = (rates[count] for count in _PROGRAMS)
    return at_least(1, _REMOTE, four / one, note=f"wall time; {'; '.join(notes)}")


@contextmanager
def _token(
    folder: Path, words: Sequence[str], environment: Mapping[str, str]
) -> Iterator[tuple[int, Path]]:
    """Serve a token; yield the process ID of hsm-cli and the path of its socket."""
    socket = folder / "run" / "pkcs11.sock"
    command = [*program("hsm-cli"), *words, "--socket", str(socket)]
    with (folder / "token.log").open("wb") as log:
        serving = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not socket.exists():
            if serving.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "token.log").read_text())
            time.sleep(_POLL_SECONDS)
        yield serving.pid, socket
    finally:
        serving.terminate()
        serving.wait()


def _module() -> Path:
    """Return p11-kit's module, or raise `AbsentError`."""
    found = next(_MODULES.glob("*/pkcs11/p11-kit-client.so"), None)
    if found is None:
        raise AbsentError("p11-kit's client module is not installed")
    return found


def _load(
    programs: Sequence[_Program], parts: Mapping[str, tuple[int, ...]]
) -> tuple[float, dict[str, float]]:
    """Return signatures per second, and seconds of processor per signature by part."""
    parts = {"program": tuple(each.pid for each in programs), **parts}
    share = _SIGNATURES // len(programs)
    seen: dict[str, list[float]] = {name: [] for name in parts}
    rates = []
    for _ in range(_TURNS):
        before = {name: cpu_seconds(*pids) for name, pids in parts.items()}
        began = time.perf_counter()
        for each in programs:
            each.begin(share)
        for each in programs:
            each.answer()
        rates.append(_SIGNATURES / (time.perf_counter() - began))
        for name, pids in parts.items():
            seen[name].append((cpu_seconds(*pids) - before[name]) / _SIGNATURES)
    used = {name: statistics.median(seconds) for name, seconds in seen.items()}
    return statistics.median(rates), used
