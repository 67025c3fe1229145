# SPDX-License-Identifier: MIT
"""Start of processes: command line, environment, control socket."""

from __future__ import annotations

import contextlib
import os
import signal
import site
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hsm_core.settings import SCRUBBING_ALLOCATOR
from hsm_server.config.annotations import User

if TYPE_CHECKING:
    # The command starts a process, and forks none.
    from hsm_server.processes.fork import Forked

VAULT: Final = ("-m", "hsm_server.bootstrap.vault")
"""Program of the vault, as arguments of Python."""

HELD_SIGNALS: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
)
"""Signals blocked until the supervisor handles them."""

_KEPT: Final = ("PATH", "LANG", "LANGUAGE", "TZ")


@dataclass(frozen=True, slots=True)
class Spawned:
    """
    Newly started process.

    Attributes:
        descriptor: pidfd (pidfd_open(2)); the owner closes it.
        control: This side's end of its control socket; the owner closes it.
    """

    process: subprocess.Popen[bytes] | Forked
    descriptor: int
    control: socket.socket


def spawn(program: Sequence[str], user: User | None, *, holds_keys: bool) -> Spawned:
    """
    Start a process with a control socket and standard error, and no other descriptor.

    A module that this process has imported is forked; other programs are executed.

    Args:
        program: Program, as arguments of Python.

        user: User of the process; None for the current one.

        holds_keys: Whether what it frees is to be overwritten.

    Raises:
        OSError: There is no room for it, or it can't become that user.
    """
    if os.geteuid() != 0:
        # Then it is this user, who may not even choose their own groups.
        user = None
    with contextlib.ExitStack() as undo:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        undo.enter_context(ours)
        with theirs, _held_signals():
            process = _begin(program, user, theirs.fileno(), holds_keys)
        undo.callback(process.wait)
        undo.callback(process.kill)
        descriptor = os.pidfd_open(process.pid)
        undo.pop_all()
    return Spawned(process, descriptor, ours)


def _begin(
    program: Sequence[str], user: User | None, control: int, holds_keys: bool
) -> subprocess.Popen[bytes] | Forked:
    if not holds_keys:
        from hsm_server.processes.fork import fork, is_imported

        if is_imported(program):
            return fork(program[1], user, control)
    return _execute(program, user, control, holds_keys)


def _execute(
    program: Sequence[str], user: User | None, control: int, holds_keys: bool
) -> subprocess.Popen[bytes]:
    command = python_command(*program, allocator=holds_keys)
    return subprocess.Popen(  # noqa: S603 (our own interpreter and module)
        [*command, str(control), str(os.getpid())],
        env=scrubbed(os.environ) | dict(SCRUBBING_ALLOCATOR if holds_keys else {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(control,),
        user=user.uid if user is not None else None,
        group=user.gid if user is not None else None,
        extra_groups=[] if user is not None else None,
    )


@contextlib.contextmanager
def _held_signals() -> Iterator[None]:
    """
    Let a child begin with these signals blocked; it leaves them so.

    A terminal sends them to the whole group of processes, and a service manager may do
    so: then the supervisor ends its children in order, and no signal may be faster.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def python_command(*words: str, allocator: bool = False) -> list[str]:
    """
    Return the command line of a program, isolated from the environment.

    Args:
        words: The program, and its arguments.

        allocator: Whether `SCRUBBING_ALLOCATOR` is in its environment. Nothing else
            there is for Python: `scrubbed` lets nothing through.
    """
    if allocator:
        isolation = ["-P"] if _in_user_site() else ["-s", "-P"]
    else:
        isolation = ["-E", "-P"] if _in_user_site() else ["-I"]
    return [sys.executable, *isolation, *words]


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the little of an environment that our processes need."""
    return {
        name: value
        for name, value in environment.items()
        if name in _KEPT or name.startswith("LC_")
    }


def _in_user_site() -> bool:
    here = Path(__file__).resolve()
    return bool(site.ENABLE_USER_SITE) and here.is_relative_to(
        Path(site.getusersitepackages()).resolve()
    )
