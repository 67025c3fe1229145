# SPDX-License-Identifier: MIT
"""
Launch of the supervisor: checks, sockets, secrets, exec.

Everything that needs no key is checked here, so a wrong setting changes nothing.
Executing the supervisor in place of this process erases the secrets from its memory,
environment and arguments; the process ID stays.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from hsm_core.errors import ConfigurationError
from hsm_server.config.annotations import User
from hsm_server.config.exit_codes import ListenError
from hsm_server.config.plan import Plan, pack_plan
from hsm_server.config.settings import ServerSettings
from hsm_server.config.tls import TLSSettings
from hsm_server.processes.spawn import (
    HELD_SIGNALS,
    VAULT,
    python_command,
    scrubbed,
    spawn,
)
from hsm_server.system import secret_handover
from hsm_server.system.secret_handover import SecretBox, fill_box
from hsm_server.system.sockets import (
    challenge_sockets,
    listening_sockets,
    metrics_sockets,
    url_of,
)
from hsm_server.system.standard_streams import drop_unwritable


def launch(
    settings: ServerSettings,
    box: SecretBox,
    *,
    vault_user: User | None,
    front_end_user: User | None,
    started: float,
) -> NoReturn:
    """
    Become the supervisor of a server.

    Args:
        settings: All settings, with those of TLS.

        box: Secrets of the server.

        vault_user: User of the vault; None for the current one.

        front_end_user: User of the front ends; None for the current one.

        started: Instant of the monotonic clock at which the command began.

    Raises:
        HSMError: A setting is wrong, the address is in use, or files in memory can't be
            sealed.
    """
    if settings.tls is None:
        raise ListenError("No TLS certificate is available.")
    with _acting_as(front_end_user):
        _check_tls(settings.tls)
    _check_isolated()
    secret_handover.self_test()
    sockets = listening_sockets(settings.bind, os.environ)
    plan = Plan(
        settings=settings,
        url=url_of(sockets[0]),
        vault_user=vault_user,
        front_end_user=front_end_user,
        notify=os.environ.get("NOTIFY_SOCKET", ""),
        watchdog_seconds=_watchdog_seconds(os.environ),
        runtime_folder=_runtime_folder(os.environ),
        started=started,
    )
    sockets += metrics_sockets(settings)
    _become_supervisor(plan, box, [*sockets, *challenge_sockets(settings)])


def _check_tls(settings: TLSSettings) -> None:
    """Check that a certificate is configured."""
    # The supervisor, which imports this module, needs none of that.
    from hsm_server.tls.contexts import try_state
    from hsm_server.tls.sources import first_state

    try_state(first_state(settings))


@contextlib.contextmanager
def _acting_as(user: User | None) -> Iterator[None]:
    """
    Access files temporarily as another user.

    Root may have been left without the capability to read what is others'.
    """
    before = os.geteuid(), os.getegid()
    if user is None or before == (user.uid, user.gid):
        yield
        return
    os.setegid(user.gid)
    os.seteuid(user.uid)
    try:
        yield
    finally:
        os.seteuid(before[0])
        os.setegid(before[1])


def _become_supervisor(
    plan: Plan, box: SecretBox, sockets: Sequence[socket.socket]
) -> NoReturn:
    # Who has started us may have it ignored, and so nobody would hear of an end.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    secrets = fill_box(box)
    told = os.memfd_create("ferrohsm-plan", os.MFD_CLOEXEC)
    os.write(told, pack_plan(plan))
    descriptors = [told, secrets, *(s.fileno() for s in sockets)]
    command = [
        *python_command("-m", "hsm_server.processes.supervisor"),
        *map(str, descriptors),
        # For who looks at the list of processes.
        *("--bind", str(plan.settings.bind)),
    ]
    # It imports its modules while the supervisor does so. If this fails, the supervisor
    # tries again, and reports it.
    with contextlib.suppress(OSError):
        vault = spawn(VAULT, plan.vault_user, holds_keys=True)
        descriptors.append(vault.control.detach())
        command += ["--vault", str(vault.process.pid), str(descriptors[-1])]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    drop_unwritable(sys.stdout, sys.stderr)
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    os.execve(sys.executable, command, scrubbed(os.environ))  # noqa: S606 (no shell)


def _check_isolated() -> None:
    """
    Check that child processes can import this package.

    Raises:
        ConfigurationError: Only PYTHONPATH leads to it, which they don't follow.
    """
    folder = Path(__file__).resolve().parents[2]
    for name in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        if name and Path(name).resolve() == folder:
            raise ConfigurationError(
                "hsm_server was imported through PYTHONPATH, which its child "
                "processes ignore. Install it, or use --isolation inline."
            )


def _watchdog_seconds(environment: Mapping[str, str]) -> float:
    """Return half of what sd_watchdog_enabled(3) tells, or 0."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 2_000_000 if text.isascii() and text.isdigit() else 0.0


def _runtime_folder(environment: Mapping[str, str]) -> Path | None:
    """Return the first of systemd's RuntimeDirectory=, if there is one."""
    first = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(first) if first else None
