# SPDX-License-Identifier: MIT
"""Hardening of the processes that serve other programs: core dumps, ptrace."""

from __future__ import annotations

import ctypes
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def forbid_dumps() -> None:
    """
    Leave no core file, and let no process of the same user look in (prctl(2)).

    Holds until another program is executed.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
