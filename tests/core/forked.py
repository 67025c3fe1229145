# SPDX-License-Identifier: MIT
"""Children made by fork, for tests."""

from __future__ import annotations

import os
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
