# SPDX-License-Identifier: MIT
"""Command ``ssh-agent``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hsm_cli.interfaces.hardening import forbid_dumps
from hsm_cli.interfaces.options import access_options, open_access
from hsm_cli.interfaces.sockets import default_path, listen, stopped_by_signals
from hsm_cli.interfaces.ssh_agent.agent import SSHAgent
from hsm_cli.interfaces.ssh_agent.identities import Identities
from hsm_cli.invocation import Invocation
from hsm_cli.io.output import print_note
from hsm_cli.options import ListOption
from hsm_cli.parameters import LocalCommand
from hsm_core.model import Record

_WAIT_SECONDS = 100.0
"""Servers end a login after 120 seconds by default."""


class AgentSocket(Record, frozen=True, kw_only=True):
    """Socket of the agent in the JSON output of ``ssh-agent``."""

    socket: str


@click.command("ssh-agent", cls=LocalCommand)
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Socket to listen on. Default: the one that systemd passes, or "
    "$XDG_RUNTIME_DIR/ferrohsm/ssh-agent.sock.",
)
@click.option(
    "--certificate",
    "certificates",
    cls=ListOption,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE,...",
    help="OpenSSH certificates of the keys; repeatable. A changed file is read again.",
)
@click.option(
    "--wait-seconds",
    type=click.FloatRange(min=0),
    default=_WAIT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Maximum time that a signature waits for approval, in seconds.",
)
@access_options
@click.pass_obj
def ssh_agent(
    invocation: Invocation,
    /,
    keys: tuple[str, ...],
    socket: Path | None,
    certificates: tuple[Path, ...],
    wait_seconds: float,
    **given: Any,
) -> None:
    """
    Run an SSH agent with keys of the HSM, until Ctrl-C.

    It offers KEYs, or all keys with tags that begin with ssh-. The tags of a key say
    what the agent signs with it:

    \b
    ssh-login           logins to servers
    ssh-sign:NAMESPACE  signatures of ssh-keygen -Y, such as ssh-sign:git
    ssh-ca:user         certificates for users
    ssh-ca:host         certificates for hosts
    ssh-host            proofs of an sshd that has this host key
    ssh-forward         all of these also over forwarded connections (ssh -A)
    """  # noqa: D301 (the character, with which click keeps the lines)
    access = open_access(invocation, "ssh-agent", **given)
    forbid_dumps()
    agent = SSHAgent(
        access,
        Identities(keys, certificates, print_note),
        wait_seconds=wait_seconds,
        log=print_note,
    )
    path = socket or default_path("ssh-agent")
    try:
        with listen(path, log=print_note) as listener, stopped_by_signals(listener):
            if listener.path is not None:
                text = str(listener.path)
                found = AgentSocket(socket=text)
                invocation.output.record(found, f"SSH_AUTH_SOCK={text}")
            listener.serve(agent.serve)
    finally:
        access.close()
