# SPDX-License-Identifier: MIT
"""
Child process made by fork(2): runs a module that the supervisor has imported.

Modules are imported once, in the supervisor, and their memory is shared. This is for
processes that face the network. The vault is executed as a program of its own: its
memory layout and its allocator are not the supervisor's.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Final, NoReturn

from hsm_server.config.annotations import User
from hsm_server.config.exit_codes import ExitCode
from hsm_server.observability.metrics import leave_shared_metrics
from hsm_server.observability.places import location
from hsm_server.processes.spawn import HELD_SIGNALS
from hsm_server.system.hardening import close_all_but, give_back_memory
from hsm_server.system.standard_streams import say

_MODULE: Final = "-m"
_ISOLATION: Final = {"-I", "-E", "-P", "-s"}


class Forked:
    """
    Forked child process, with the methods of `subprocess.Popen` that are used here.

    Attributes:
        pid: Its process ID.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def kill(self) -> None:
        """Kill the process, unless it was waited for."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait for the end; return the exit status, or the negative signal number."""
        if self._status is None:
            _, status = os.waitpid(self.pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
        return self._status


def import_programs() -> None:
    """Import the programs that are to be forked."""
    with _no_system_cas():
        import hsm_server.processes.front_end
        import hsm_server.processes.tls_manager  # noqa: F401

    # A collection writes to all objects that it sees, which copies their pages.
    gc.collect()
    give_back_memory()
    gc.freeze()


@contextlib.contextmanager
def _no_system_cas() -> Iterator[None]:
    """
    Let aiohttp load no CA: it does at its import, for requests without a TLS context.

    Requests over HTTPS have one here, and the CAs take more memory than aiohttp.
    """
    nothing = dict.fromkeys(("SSL_CERT_FILE", "SSL_CERT_DIR"), os.devnull)
    os.environ.update(nothing)
    try:
        yield
    finally:
        for name in nothing:
            del os.environ[name]


def is_imported(program: Sequence[str]) -> bool:
    """Return whether a program is a module that this process has imported."""
    return program[0] == _MODULE and program[1] in sys.modules


def fork(module: str, user: User | None, control: int) -> Forked:
    """
    Fork a process that runs ``main`` of a module, and exits.

    Signals must be blocked as the child is to have them.

    Args:
        module: Name of an imported module.

        user: User of the process; None for the current one.

        control: Descriptor of its control socket; all others are closed.

    Raises:
        OSError: There is no room for it.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return Forked(pid)
    status: int = ExitCode.FAILED
    try:
        _leave_parent(user, control)
        _show_as(module, control, parent)
        sys.argv[1:] = [str(control), str(parent)]
        sys.modules[module].main()
        status = ExitCode.OK
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else ExitCode.FAILED
    except BaseException as error:
        place = location(error.__traceback__)
        say(f"error: unexpected {type(error).__name__} at {place}.")
    finally:
        _exit(status)


def _exit(status: int) -> NoReturn:
    """Exit without what the parent would do at its own exit."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)


def _leave_parent(user: User | None, control: int) -> None:
    """Give up what belongs to the supervisor: signals, descriptors, user."""
    signal.set_wakeup_fd(-1)
    for number in HELD_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    leave_shared_metrics()
    close_all_but([control])
    if user is not None:
        os.setgroups([])
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)


def _show_as(module: str, control: int, parent: int) -> None:
    """Show the process by its module in ps(1), as far as there is room."""
    flags = takewhile(lambda word: word in _ISOLATION, sys.orig_argv[1:])
    words = [sys.executable, *flags, _MODULE, module, str(control), str(parent)]
    text = b"".join(os.fsencode(word) + b"\0" for word in words)
    room = len(Path("/proc/self/cmdline").read_bytes())
    # The field `arg_start` of proc(5).
    start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45])
    ctypes.memmove(start, text[: room - 1].ljust(room, b"\0"), room)
