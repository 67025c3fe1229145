# SPDX-License-Identifier: MIT
"""Start of a server of several processes, its event loops and its collector."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
import weakref
from asyncio.sslproto import SSLProtocol
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_server.config.settings import EventLoop
from hsm_server.processes.child_process import Backoff
from hsm_server.system.secret_handover import SecretBox, empty_box, fill_box, pour
from hsm_server.system.sockets import pass_over_what_stays, run
from tests.server.family import create
from tests.server.process import Site
from tests.server.support import b64


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Give a folder to serve from."""
    return Site(tmp_path)


def living_members(group: int) -> list[int]:
    """
    Return the processes of a group that run.

    One that has ended stays in its group until somebody waits for it, which the first
    process of a container may never do.
    """
    alive = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # The fields `state` and `pgrp` of proc(5).
            state, _, pgrp, *_ = path.read_text().rpartition(")")[2].split()
            if int(pgrp) == group and state not in "ZX":
                alive.append(int(path.parent.name))
    return alive


def test_waits_grow_to_an_end() -> None:
    """Each quick end doubles the wait, up to 10 seconds; work makes it short again."""
    backoff = Backoff()
    waits = [backoff.after(0.0) for _ in range(12)]

    assert [0.05, 0.1, 0.2, 0.4] == waits[:4]
    assert [10.0, 10.0] == waits[-2:]
    assert 0.05 == backoff.after(60.0)
    assert 0.1 == backoff.after(0.5)


@pytest.mark.parametrize("length", [1, 4096, 400_000])
def test_a_box_is_poured_as_often_as_one_likes(length: int) -> None:
    """Each pipe holds all of it, and the box can't be changed any more."""
    box = SecretBox(
        values={"master-key": b"\7" * length}, files={"hmac-key": "/f"}, environment={}
    )
    descriptor = fill_box(box)
    try:
        found = [empty_box(pour(descriptor)) for _ in range(3)]
        with pytest.raises(PermissionError):
            os.pwrite(descriptor, b"x", 0)
    finally:
        os.close(descriptor)

    assert [box, box, box] == found
    assert "\\x07" not in repr(box)


@pytest.mark.parametrize("delay", [0.05, 0.3, 0.6, 1.0])
def test_a_signal_at_the_start_ends_it_in_order(site: Site, delay: float) -> None:
    """SIGTERM at any time before it serves: exit code 0, no complaint, all gone."""
    with subprocess.Popen(
        site.command(),
        env=site.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as process:
        time.sleep(delay)
        # As a terminal or a service manager does it: to all at one time.
        os.killpg(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=60)

    assert process.returncode in {0, -signal.SIGTERM}
    assert "error" not in err
    assert "Traceback" not in err
    # Its first process may end before the vault, which the kernel then kills.
    ends = time.monotonic() + 60.0
    while (alive := living_members(process.pid)) and time.monotonic() < ends:
        time.sleep(0.02)
    assert [] == alive


def test_a_deleted_folder_is_as_good_as_any(site: Site) -> None:
    """A server whose current folder is gone serves, and starts again what dies."""
    gone = site.folder / "gone"
    gone.mkdir()
    remove = (
        *(sys.executable, "-c"),
        "import os, sys\nos.rmdir(os.getcwd())\nos.execv(sys.argv[1], sys.argv[1:])",
    )
    with site.serve(before=remove, cwd=gone) as server:
        create(server, "signer")
        assert 0 == server.stop()


def test_large_surroundings_reach_the_vault_alone(site: Site) -> None:
    """A store that is elsewhere may need variables; too many of them are refused."""
    many = {f"AWS_{n}": "x" * 100_000 for n in range(6)}
    code, message = site.fails(
        *("--key-store", "s3://bucket/path"), **many, FERROHSM_HMAC_KEY=b64(b"\10" * 32)
    )

    assert 2 == code
    assert 1 == message.count("\n")


class Knot:
    """Something that only the collector can free."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def _thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("_thawed")
def test_what_stays_is_passed_over() -> None:
    """Modules are looked at no more; what comes after is still collected."""
    pass_over_what_stays()
    tracked = len(gc.get_objects())
    knot = Knot()
    gone = weakref.ref(knot)
    del knot
    gc.collect()

    assert gc.get_freeze_count() > 10_000
    assert tracked < 1_000
    assert gone() is None


def test_a_tls_connection_has_room_for_two_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not for 256 KiB: strangers have as many as they have connections."""
    monkeypatch.setattr(SSLProtocol, "max_size", SSLProtocol.max_size)

    async def room() -> int:
        return SSLProtocol.max_size

    assert 32 * 1024 == run(room(), EventLoop.ASYNCIO)
