# SPDX-License-Identifier: MIT
"""Executes a server whose processes hand on less in a sealed file than others do."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from hsm_server import main as server
from hsm_server.processes import supervisor
from hsm_server.system import secret_handover

MOST_BYTES: Final = 16 * 1024
_execve = os.execve


def _execute(path: str, command: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Execute this program again in the place of the supervisor."""
    at = command.index("-m")
    here = str(Path(__file__).resolve())
    _execve(path, [*command[:at], here, "supervise", *command[at + 2 :]], env)


def _main() -> None:
    secret_handover.MAX_SEALED_BYTES = MOST_BYTES  # type: ignore[misc]
    if sys.argv[1] == "supervise":
        del sys.argv[1]
        supervisor.main()
    else:
        del sys.argv[1 : sys.argv.index("hsm_server") + 1]
        os.execve = _execute  # type: ignore[assignment]
        server.main()


if __name__ == "__main__":
    _main()
