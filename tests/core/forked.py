# SPDX-License-Identifier: MIT
"""Children made by fork, for tests."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Callable


def holds_in_child(
    check: Callable[[], bool], fork: Callable[[], int] = os.fork
) -> bool:
    """Return what a function returns in a child; False if it raises there."""
    with warnings.catch_warnings():
        # Newer Pythons warn of threads that a child lacks.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = fork()
    if child == 0:
        holds = False
        try:
            holds = check()
        finally:
            os._exit(not holds)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def in_child(work: Callable[[], None]) -> int:
    """Run *work* in a child and return how that ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def was_killed(work: Callable[[], None]) -> bool:
    """Run *work* in a child and return whether it was killed; it must not fail else."""
    status = in_child(work)
    assert status in {0, -signal.SIGKILL}
    return status != 0
