# SPDX-License-Identifier: MIT
"""A folder that lives as long as the server: shared metrics, nothing secret."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from hsm_core.errors import ConfigurationError
from hsm_server.plan import Plan

__all__ = ["RuntimeFolder"]

_KINDS: Final = ("counter", "histogram")
_PLACES: Final = [Path(name) for name in ("/dev/shm", "/tmp", "/var/tmp")]  # noqa: S108 (a folder of our own is made there)
_FILE_BYTES: Final = 64 * 1024
_NAME: Final = re.compile(r"ferrohsm-([0-9]+)-[^/]+\Z")


class RuntimeFolder:
    """
    Is made in memory where that is possible, and removed at the end of a ``with``.

    Each process finds the files that it writes, and no others may write them: front
    ends read those of all.

    Args:
        plan: Says who the processes are.

    Attributes:
        path: The folder.
    """

    def __init__(self, plan: Plan) -> None:
        self.path = Path(_make(plan.runtime_folder))
        # A lock shows that the server lives, also where its process id says nothing.
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        group = plan.front_end_user.gid if plan.front_end_user else -1
        vault = plan.vault_user.uid if plan.vault_user else -1
        front = plan.front_end_user.uid if plan.front_end_user else -1
        fronts = {f"front{n}": front for n in range(1, plan.settings.workers + 1)}
        for slot, user in {"supervisor": -1, "vault": vault, **fronts}.items():
            for kind in _KINDS:
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
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _make(wanted: Path | None) -> str:
    for place in [wanted] if wanted else _PLACES:
        with contextlib.suppress(OSError):
            _remove_left(place)
            return tempfile.mkdtemp(prefix=f"ferrohsm-{os.getpid()}-", dir=place)
    raise ConfigurationError(
        "There is no place for what the server's processes share: none of "
        f"{', '.join(map(str, [wanted] if wanted else _PLACES))} can be written."
    )


def _remove_left(place: Path) -> None:
    """Remove what servers have left behind that were killed."""
    for found in place.glob("ferrohsm-*"):
        name = _NAME.match(found.name)
        with contextlib.suppress(OSError):
            if (
                name is not None
                and found.lstat().st_uid == os.geteuid()
                and not Path(f"/proc/{name[1]}").exists()
            ):
                _remove_unlocked(found)


def _remove_unlocked(folder: Path) -> None:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(lock)


def _make_file(path: Path, user: int, group: int) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        # An empty file can't be read as one without values.
        os.ftruncate(descriptor, _FILE_BYTES)
        os.fchmod(descriptor, 0o640)
        os.fchown(descriptor, user, group)
    finally:
        os.close(descriptor)
