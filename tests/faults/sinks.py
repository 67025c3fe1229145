# SPDX-License-Identifier: MIT
"""
Broken places for the trail: eight ways in which its file fails under a real server.

Each is a context: inside, the trail can't be kept there; after it, the cause is gone.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

Sink = Callable[[int, Path], contextlib.AbstractContextManager[None]]
"""Given the server's process id and the live file of the trail."""

_ATTACH_SECONDS: Final = 5.0


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """
    Mount a small file system in memory over an empty folder.

    Raises:
        CalledProcessError: Mounting is not allowed here.
    """
    options = f"size={megabytes}m,mode=0700"
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        check=True,
        capture_output=True,
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def _full(_pid: int, live: Path) -> Iterator[None]:
    """No block is free."""
    filler = live.with_name("filler")
    with filler.open("wb", buffering=0) as file:
        for size in (64 * 1024, 512, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size) == size:
                    pass
    try:
        yield
    finally:
        filler.unlink()


def _injected(rule: str) -> Sink:
    """Return a sink in which system calls on the live file fail, or hang."""

    @contextlib.contextmanager
    def sink(pid: int, live: Path) -> Iterator[None]:
        with (
            live.with_name("strace.log").open("wb") as log,
            subprocess.Popen(
                [
                    *("strace", "-f", "-q", "-p", str(pid), "-P", str(live)),
                    *("-e", f"trace={rule.partition(':')[0]}", "-e", f"inject={rule}"),
                ],
                stdout=log,
                stderr=log,
            ) as tracer,
        ):
            _wait_attached(pid)
            try:
                yield
            finally:
                tracer.terminate()
                tracer.wait()
        live.with_name("strace.log").unlink()

    return sink


def _wait_attached(pid: int) -> None:
    until = time.monotonic() + _ATTACH_SECONDS
    tasks = Path(f"/proc/{pid}/task")
    while time.monotonic() < until:
        traced = [
            "TracerPid:\t0\n" not in (task / "status").read_text()
            for task in tasks.iterdir()
        ]
        if all(traced):
            return
        time.sleep(0.02)
    raise TimeoutError("The server can't be traced.")


@contextlib.contextmanager
def _deleted(_pid: int, live: Path) -> Iterator[None]:
    """Somebody has removed the file; nobody puts it back."""
    live.unlink()
    yield


@contextlib.contextmanager
def _moved(_pid: int, live: Path) -> Iterator[None]:
    """Somebody has renamed the file, as a log rotation does, and undoes it."""
    aside = live.with_name("moved-aside")
    os.rename(live, aside)
    yield
    if not live.exists():
        os.rename(aside, live)
    else:
        aside.unlink()


@contextlib.contextmanager
def _replaced(_pid: int, live: Path) -> Iterator[None]:
    """A file of somebody else has taken the place."""
    aside = live.with_name("moved-aside")
    os.rename(live, aside)
    live.touch(mode=0o600)
    live.write_text("not ours\n")
    yield
    os.rename(aside, live)


SINKS: Final[Mapping[str, Sink]] = MappingProxyType(
    {
        "full": _full,
        "deleted": _deleted,
        "moved": _moved,
        "replaced": _replaced,
        "write fails": _injected("write,pwrite64,writev:error=EIO"),
        "write is short": _injected("write,pwrite64,writev:retval=7"),
        "sync fails": _injected("fdatasync,fsync:error=EIO"),
        "sync hangs": _injected("fdatasync,fsync:delay_enter=4s"),
    }
)
"""By name."""
