# SPDX-License-Identifier: MIT
"""What a service manager gives and hears: sockets, notes, and a watchdog."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hsm_server.config.plan import Plan
from hsm_server.config.settings import ServerSettings
from hsm_server.processes.runtime_folder import ServiceManager
from tests.server.family import Family, retrying, wait_until
from tests.server.process import Site, client_context, request

_HANDS_OVER = """
import os, sys
count = int(sys.argv[1])
given = [int(word) for word in sys.argv[2 : 2 + count]]
apart = [os.dup2(fd, 100 + n, False) for n, fd in enumerate(given)]
for n, fd in enumerate(apart):
    os.dup2(fd, 3 + n)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(count)
os.execv(sys.argv[2 + count], sys.argv[2 + count :])
"""

_HANGS_UP = """
import os, signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
parent = os.getpid()
if os.fork() == 0:
    while os.getppid() == parent:
        with open(f"/proc/{parent}/cmdline", "rb") as file:
            if b"supervisor" in file.read():
                break
        time.sleep(0.01)
    os.kill(parent, signal.SIGHUP)
    os._exit(0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Give a folder to serve from."""
    return Site(tmp_path)


def hand_over(sockets: Sequence[socket.socket]) -> list[str]:
    """Return the command that executes another one with sockets, as systemd does."""
    numbers = [str(s.fileno()) for s in sockets]
    return [sys.executable, "-c", _HANDS_OVER, str(len(numbers)), *numbers]


@contextlib.contextmanager
def notes(address: str) -> Iterator[socket.socket]:
    """Listen where a server tells how it is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        listener.settimeout(60)
        yield listener


def heard(listener: socket.socket) -> dict[str, str]:
    """Return the next note that is not from the watchdog."""
    while True:
        lines = listener.recv(4096).decode().splitlines()
        note = dict(line.split("=", 1) for line in lines)
        if "WATCHDOG" not in note:
            return note


def test_sockets_that_are_handed_over_are_served(site: Site) -> None:
    """All of them, also after each front end was started again."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        addresses = [one.getsockname(), other.getsockname()]
        context = client_context(site.authority)
        with site.serve(
            before=hand_over([one, other]), descriptors=[one.fileno(), other.fileno()]
        ) as server:
            one.close()
            other.close()
            first = [request(a, context, "GET", "/healthz").status for a in addresses]
            (front_end,) = Family(server).front_ends
            os.kill(front_end, signal.SIGKILL)
            retrying(server, "/healthz")
            again = [request(a, context, "GET", "/healthz").status for a in addresses]
            assert 0 == server.stop()

    assert addresses[0] == server.address
    assert [200, 200] == first == again


@pytest.mark.parametrize("is_abstract", [False, True])
def test_a_life_is_told(site: Site, is_abstract: bool) -> None:
    """It is ready, reloads and is ready again, and stops; each is told once."""
    address = f"@ferrohsm-{os.getpid()}" if is_abstract else str(site.folder / "notify")
    changes = {"NOTIFY_SOCKET": address}
    with notes(address) as listener, site.serve(changes=changes) as server:
        ready = heard(listener)
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        server.process.send_signal(signal.SIGHUP)
        reloading, again = heard(listener), heard(listener)
        server.process.terminate()
        stopping = heard(listener)
        assert 0 == server.process.wait(60)

    assert {"READY": "1"} == ready == again
    assert "1" == reloading["RELOADING"]
    assert before <= int(reloading["MONOTONIC_USEC"])
    assert {"STOPPING": "1"} == stopping


def test_the_watchdog_is_fed(site: Site) -> None:
    """As long as the supervisor works, also while a child is started again."""
    address = str(site.folder / "notify")
    changes = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"}
    with notes(address) as listener, site.serve(changes=changes) as server:
        # Said after it listens: later it would stand among what follows the kill.
        ready = heard(listener)
        Family(server).kill_vault()
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while listener.recv(4096):
                pass
        listener.settimeout(60)
        notes_after = [listener.recv(4096) for _ in range(5)]
        assert 200 == retrying(server, "/healthz").status
        assert 0 == server.stop()

    assert {"READY": "1"} == ready
    assert [b"WATCHDOG=1"] * 5 == notes_after


async def test_a_manager_that_does_not_read_holds_up_nothing(tmp_path: Path) -> None:
    """What there is no room for is not said."""
    address = str(tmp_path / "notify")
    plan = Plan(settings=ServerSettings(), url="", watchdog_seconds=0.001)
    with notes(address) as listener:
        watching = asyncio.create_task(
            ServiceManager(address).watch(plan, lambda: True)
        )
        await asyncio.sleep(1)
        watching.cancel()
        listener.setblocking(False)
        heard_last = listener.recv(4096)

    assert b"WATCHDOG=1" == heard_last


def test_a_reload_that_comes_too_early_is_not_lost(site: Site) -> None:
    """SIGHUP before it serves is heeded as soon as it does."""
    address = str(site.folder / "notify")
    with (
        notes(address) as listener,
        site.serve(
            before=(sys.executable, "-c", _HANGS_UP), changes={"NOTIFY_SOCKET": address}
        ) as server,
    ):
        told = [next(iter(heard(listener))) for _ in range(3)]
        wait_until(lambda: "reloaded" in {line["event"] for line in site.log()})
        assert 0 == server.stop()

    assert ["READY", "RELOADING", "READY"] == told
