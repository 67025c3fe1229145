# SPDX-License-Identifier: MIT
"""Start of child processes with a minimal environment."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hsm_core.settings import SCRUBBING_ALLOCATOR
from hsm_server.config.plan import User
from hsm_server.processes.launch import HELD_SIGNALS, python_command, scrubbed


@dataclass(frozen=True, slots=True)
class Spawned:
    """
    Newly started process.

    Attributes:
        descriptor: pidfd (pidfd_open(2)); the owner closes it.
        control: This side's end of its control socket; the owner closes it.
    """

    process: subprocess.Popen[bytes]
    descriptor: int
    control: socket.socket


def spawn(program: Sequence[str], user: User | None, *, holds_keys: bool) -> Spawned:
    """
    Start a process with a control socket and standard error, and no other descriptor.

    Args:
        program: What it runs, as words for Python.

        user: Whom it runs as; None is this user.

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
            process = _execute(program, user, theirs.fileno(), holds_keys)
        undo.callback(process.wait)
        undo.callback(process.kill)
        descriptor = os.pidfd_open(process.pid)
        undo.pop_all()
    return Spawned(process, descriptor, ours)


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
