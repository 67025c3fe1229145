# SPDX-License-Identifier: MIT
"""The processes of a running server, as the kernel knows them."""

import contextlib
from pathlib import Path
from typing import Final

PROGRAMS: Final = {
    "vault": "hsm_server.bootstrap.vault",
    "tls_manager": "hsm_server.processes.tls_manager",
    "front end": "hsm_server.processes.front_end",
}
"""What each kind of process runs, by its name in our tests."""


def children(pid: int) -> list[int]:
    """Return the ids of a process's children, dead ones too."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def members(server: int, kind: str) -> list[int]:
    """
    Return the ids of a server's processes of one kind; there may be none just now.

    Args:
        server: Process id of the supervisor.

        kind: A key of `PROGRAMS`.
    """
    return [pid for pid in children(server) if PROGRAMS[kind] in _words(pid)]


def is_gone(pid: int) -> bool:
    """Whether a process has ended with all its threads, which may hold locks."""
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                status = (task / "stat").read_text()
                if status.rpartition(")")[2].split()[0] not in "ZX":
                    return False
    return True


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []
