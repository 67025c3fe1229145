# SPDX-License-Identifier: MIT
"""
A server of several processes whose vault kills itself at a named point, once.

It serves as hsm-server does; only the vault is another program, which installs a
handler at the failpoints of the core first. The vault that takes its place lives::

    dying_vault.py POINT N MARKER FLAG...

*N* is the pass of the point that is the last, and *MARKER* a file that is made then.
The processes of a server see nothing but what is installed, so this file imports
nothing from beside it.
"""

import itertools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

from hsm_server.main import main as command
from hsm_server.processes import launch, supervisor
from hsm_server.processes.child_process import Roles
from hsm_server.processes.spawn import python_command

_SELF: Final = str(Path(__file__).resolve())
_SUPERVISOR: Final = "hsm_server.processes.supervisor"
_VAULT: Final = "hsm_server.bootstrap.vault"
_OURS: Final = 3
"""How many words are ours: point, pass and marker."""


def _dying_at(point: str, times: int, marker: Path) -> Callable[[str], None]:
    passes = itertools.count(1)

    def handle(name: str) -> None:
        if name == point and next(passes) == times and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return handle


def _serve(ours: Sequence[str], flags: Sequence[str]) -> None:
    """Serve with the flags of hsm-server, under a supervisor of our own."""
    plain = python_command

    def ours_instead(*words: str, allocator: bool = False) -> list[str]:
        return plain(_SELF, _SUPERVISOR, *ours, allocator=allocator)

    def never(*_: object, **__: object) -> NoReturn:
        raise OSError

    launch.python_command = ours_instead  # type: ignore[attr-defined]
    # The supervisor starts the vault, which is ours.
    launch.spawn = never  # type: ignore[attr-defined]
    command.main(list(flags), prog_name="hsm-server")


def _supervise(ours: Sequence[str], words: Sequence[str]) -> None:
    roles = Roles(vault=(_SELF, _VAULT, *ours))
    supervisor.Supervisor = partial(supervisor.Supervisor, roles=roles)  # type: ignore[assignment,misc]
    sys.argv[1:] = words
    supervisor.main()


def _hold(ours: Sequence[str], words: Sequence[str]) -> None:
    # The supervisor runs this file, too, and must not load the vault's cryptography.
    from hsm_core._internal.lib.failpoints import install
    from hsm_server.bootstrap import vault

    point, times, marker = ours
    sys.argv[1:] = words
    with install(_dying_at(point, int(times), Path(marker))):
        vault.main()


if __name__ == "__main__":
    _, *words = sys.argv
    role = {_SUPERVISOR: _supervise, _VAULT: _hold}.get(words[0], _serve)
    if role is not _serve:
        del words[0]
    role(words[:_OURS], words[_OURS:])
