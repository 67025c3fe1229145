# SPDX-License-Identifier: MIT
"""Blows to single processes of a running server: killed, or stopped for a while."""

import os
import random
import signal
import time
from typing import Final

from tests.e2e.family import is_gone, members
from tests.faults.expectation import check

_HUNG_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.01


def victim(server: int, kind: str, chance: random.Random) -> int:
    """Return the id of one of a server's processes, which must be there."""
    found = members(server, kind)
    check(bool(found), "a process is missing", kind)
    return chance.choice(found)


def kill(pid: int) -> None:
    """End a process at once."""
    os.kill(pid, signal.SIGKILL)


def stop_for(pid: int, seconds: float) -> None:
    """Have a process do nothing for a while, as where the machine is too busy."""
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def stop_until_killed(pid: int) -> None:
    """
    Have a process do nothing any more, until the supervisor ends it.

    Raises:
        Violation: The supervisor does not notice.
    """
    os.kill(pid, signal.SIGSTOP)
    until = time.monotonic() + _HUNG_SECONDS
    while not is_gone(pid):
        check(time.monotonic() < until, "nobody ends a process that hangs", pid)
        time.sleep(_POLL_SECONDS)
