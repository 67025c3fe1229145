# SPDX-License-Identifier: MIT
"""Run a server whose second front end is hostile; see `hostile_program`."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from hsm_server import main as server
from hsm_server.processes import supervisor
from hsm_server.processes.child_process import Roles

_HERE = Path(__file__).resolve()
_execve = os.execve


def _execute(path: str, command: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Execute this program again in the place of the supervisor."""
    at = command.index("-m")
    _execve(path, [*command[:at], str(_HERE), "supervise", *command[at + 2 :]], env)


def _main() -> None:
    if sys.argv[1] == "supervise":
        del sys.argv[1]
        program = str(_HERE.with_name("hostile_program.py"))
        supervisor.Roles = lambda: Roles(front_end=(program,))  # type: ignore[attr-defined,misc,assignment]
        supervisor.main()
    else:
        os.execve = _execute  # type: ignore[assignment]
        server.main()


if __name__ == "__main__":
    _main()
