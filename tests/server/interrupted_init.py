# SPDX-License-Identifier: MIT
"""
Interrupt ``hsm-server init`` at chosen steps, each in a process of its own.

A step is a file or folder that is made, renamed or removed. Usage: FOLDER SIGNAL FIRST
APART; prints one line of JSON for each step: exit status (negative for a signal), what
is in the folder, and what was printed. The last one is the first that is not
interrupted.
"""

import contextlib
import itertools
import json
import os
import sys
from pathlib import Path

from hsm_server.init.command import init

EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "open", "sqlite3.connect"}


def interrupt(folder: Path, number: int, stop_at: int) -> None:
    """Have this process send itself a signal at a step in the folder."""
    seen = 0

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal seen
        if event not in EVENTS or not isinstance(args[0], str | bytes | Path):
            return
        if event == "open" and not (int(str(args[2])) & (os.O_CREAT | os.O_WRONLY)):
            return
        if str(folder) in os.fsdecode(args[0]):
            seen += 1
            if seen == stop_at:
                os.kill(os.getpid(), number)

    sys.addaudithook(hook)


def attempt(folder: Path, number: int, step: int) -> None:
    """Run the command in this process, and exit as it does."""
    interrupt(folder, number, step)
    init([str(folder / "hsm"), "--yes", "--second=grace"], prog_name="init")


def main() -> None:
    """Run the steps."""
    top, number, first, apart = sys.argv[1:]
    for step in itertools.count(int(first), int(apart)):
        folder = Path(top) / f"{number}-{step}"
        folder.mkdir()
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            code = 99
            try:
                attempt(folder, int(number), step)
            except SystemExit as exit_:
                code = exit_.code if isinstance(exit_.code, int) else 98
            finally:
                with contextlib.suppress(OSError):
                    sys.stdout.flush()
                os._exit(code)
        os.close(writing)
        with open(reading) as file:
            text = file.read()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        found = sorted(path.name for path in folder.iterdir())
        sys.stdout.write(f"{json.dumps([step, status, found, text])}\n")
        sys.stdout.flush()
        if status == 0:
            return


if __name__ == "__main__":
    main()
