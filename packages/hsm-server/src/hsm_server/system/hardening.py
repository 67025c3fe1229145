# SPDX-License-Identifier: MIT
"""
Process hardening at startup: privileges, core dumps, ptrace.

Python's library lacks these calls, so they use ctypes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

_MOST_DESCRIPTORS: Final = 2**31 - 1
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_SET_MDWE: Final = 65
_MDWE_REFUSE_EXEC_GAIN, _MDWE_NO_INHERIT = 1, 2
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITIES_V3: Final = 0x20080522
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_M_PERTURB: Final = -6
_M_MMAP_THRESHOLD: Final = -3
_LARGE_BYTES: Final = 256 * 1024
_PERTURB_BYTE: Final = 0xA5

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, *arguments: int) -> None:
    padded = [*arguments, 0, 0, 0, 0][:4]
    if _LIBC.prctl(option, *map(ctypes.c_ulong, padded)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def close_all_but(kept: Iterable[int]) -> None:
    """Close all descriptors but these and the standard streams."""
    bounds = [*sorted({0, 1, 2, *kept}), _MOST_DESCRIPTORS]
    for before, after in pairwise(bounds):
        os.closerange(before + 1, after)


def forbid_dumps() -> None:
    """
    Leave no core file, and let no process of the same user look in (prctl(2)).

    Holds until another program is executed.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def forbid_new_privileges() -> None:
    """Gain nothing by set-user-id programs, nor do our children."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """
    Drop all capabilities (capabilities(7)).

    Raises:
        OSError: The kernel refuses that.
    """
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if _LIBC.capset(ctypes.byref(header), ctypes.byref(nothing)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def refuse_new_code(*, also_children: bool) -> None:
    """
    Deny memory that is writable and executable (``PR_SET_MDWE``, prctl(2)).

    Kernels before 6.3 don't have this, and before 6.6 not without *also_children*; then
    nothing happens. It is not for processes that use pyOpenSSL, whose callbacks are
    made at run time.

    Args:
        also_children: Whether programs that are started later are to refuse it too.
    """
    inheritance = 0 if also_children else _MDWE_NO_INHERIT
    with contextlib.suppress(OSError):
        _prctl(_PR_SET_MDWE, _MDWE_REFUSE_EXEC_GAIN | inheritance)


def die_with_parent(parent: int) -> None:
    """
    Be killed as soon as the parent process is gone, however it ended.

    Args:
        parent: Its process id. If it is gone already, this process ends at once.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def lock_memory() -> bool:
    """
    Keep this process out of swap (mlockall(2)), and return whether that is allowed.

    Pages are locked when they are first used. It is not tried where a limit on locked
    memory could later make allocations fail.
    """
    unlimited = resource.RLIM_INFINITY
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (unlimited, unlimited))
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == unlimited:
        return _lock_all()
    if os.geteuid() != 0:
        return False
    # Under a limit of 0 this succeeds only where limits don't count; not every root,
    # such as that of a container, is so free.
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, hard))
    try:
        return _lock_all()
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))


def _lock_all() -> bool:
    flags = _MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT
    return bool(_LIBC.mlockall(flags) == 0)


def scrub_freed_memory() -> None:
    """
    Make the allocator overwrite freed memory (mallopt(3), ``M_PERTURB``).

    Only glibc has this; elsewhere nothing happens.
    """
    mallopt = getattr(_LIBC, "mallopt", None)
    if mallopt is not None:
        mallopt(_M_PERTURB, _PERTURB_BYTE)


def return_large_buffers() -> None:
    """
    Make the allocator return large freed buffers at once (mallopt(3)).

    By itself glibc keeps those of a size that was freed once: after a few large bodies
    a process would have hundreds of megabytes permanently. Other platforms do nothing.
    """
    mallopt = getattr(_LIBC, "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def give_back_memory() -> None:
    """
    Return free memory to the system (malloc_trim(3)).

    By itself glibc keeps it: what many bodies leave free looks like growth. Only glibc
    has this; elsewhere nothing happens.
    """
    trim = getattr(_LIBC, "malloc_trim", None)
    if trim is not None:
        trim(0)
