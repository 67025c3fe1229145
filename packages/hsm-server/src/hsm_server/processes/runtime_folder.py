# SPDX-License-Identifier: MIT
"""Runtime folder of the shared metrics, and notices to the service manager."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from hsm_core.errors import ConfigurationError
from hsm_server.config.plan import Plan
from hsm_server.observability.instruments import TLS_SLOT
from hsm_server.observability.metrics import METRIC_FILES

_FILE_BYTES: Final = 64 * 1024
_PLACES: Final = [Path(name) for name in ("/dev/shm", "/tmp", "/var/tmp")]  # noqa: S108 (a folder of our own is made there)
_PREFIX: Final = "ferrohsm-metrics-"
_NAME: Final = re.compile(_PREFIX + r"[0-9]+-[a-z0-9_]{8}\Z")  # mkdtemp's own letters


class RuntimeFolder:
    """
    Runtime folder, in memory if possible; removed at the end of a ``with``.

    Each process finds the files that it writes, and no other process may write them:
    front ends read all. The folder is locked (flock(2)) while its server runs. The lock
    works where process IDs do not: in containers, and where /proc is hidden.

    Args:
        plan: Users of the processes.

    Attributes:
        path: The folder.
    """

    def __init__(self, plan: Plan) -> None:
        self.path, self._lock = _make(plan.runtime_folder)
        group = plan.front_end_user.gid if plan.front_end_user else -1
        vault = plan.vault_user.uid if plan.vault_user else -1
        front = plan.front_end_user.uid if plan.front_end_user else -1
        fronts = {f"front{n}": front for n in range(1, plan.settings.workers + 1)}
        users = {"supervisor": -1, "vault": vault, TLS_SLOT: front, **fronts}
        for slot, user in users.items():
            for kind in METRIC_FILES:
                _make_file(self.path / f"{kind}_{slot}.db", user, group)
        os.chown(self.path, -1, group)
        # The vault, which is in no group with others, only needs to reach its files.
        self.path.chmod(0o751)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            _remove(self.path)
        os.close(self._lock)


def _make(wanted: Path | None) -> tuple[Path, int]:
    """Return a new folder, and the descriptor that holds its lock."""
    places = [wanted] if wanted else _PLACES
    for place in places:
        with contextlib.suppress(OSError):
            _remove_left(place)
            path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place))
            return path, _lock(path)
    raise ConfigurationError(
        f"No directory for runtime files: none of {', '.join(map(str, places))} "
        "is writable."
    )


def _lock(path: Path) -> int:
    """
    Lock a folder, and return the descriptor that holds the lock.

    Raises:
        OSError: It can't be opened, or another process has it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Until it was locked, another start could take it for one left behind.
        if not path.is_dir():
            raise FileNotFoundError(path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_left(place: Path) -> None:
    """Remove what servers have left behind that were killed."""
    for found in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if not _NAME.match(found.name) or found.lstat().st_uid != os.geteuid():
                continue
            lock = _lock(found)
            try:
                _remove(found)
            finally:
                os.close(lock)


def _remove(folder: Path) -> None:
    """
    Remove a folder and what servers write there.

    Raises:
        OSError: There is something else, too; that stays.
    """
    for kind in METRIC_FILES:
        for path in folder.glob(f"{kind}_*.db"):
            path.unlink()
    folder.rmdir()


def _make_file(path: Path, user: int, group: int) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        # An empty file can't be read as one without values.
        os.ftruncate(descriptor, _FILE_BYTES)
        os.fchmod(descriptor, 0o640)
        os.fchown(descriptor, user, group)
    finally:
        os.close(descriptor)


class ServiceManager:
    """
    Client of systemd or another service manager.

    Args:
        address: Value of ``NOTIFY_SOCKET``; a name in the abstract namespace begins
            with ``@``. Empty disables notifications.
    """

    def __init__(self, address: str) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    def ready(self) -> None:
        """The server serves."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """It reads again what may have changed; then it says that it is ready."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """It begins to end."""
        self._tell("STOPPING=1")

    async def watch(self, plan: Plan, is_well: Callable[[], bool]) -> None:
        """Notify the watchdog at its interval while the server is healthy."""
        while plan.watchdog_seconds > 0:
            await asyncio.sleep(plan.watchdog_seconds)
            if is_well():
                self._tell("WATCHDOG=1", patience_seconds=0.0)

    def _tell(self, text: str, patience_seconds: float = 1.0) -> None:
        """Send a notification without blocking."""
        if not self._address:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s,
        ):
            s.settimeout(patience_seconds)
            s.sendto(text.encode(), self._address)
