# SPDX-License-Identifier: MIT
"""Parser of the users that child processes run as."""

from __future__ import annotations

import os
import pwd

import click

from hsm_server.config.plan import User
from hsm_server.config.settings import Isolation


def parse_user(
    context: click.Context, option: click.Parameter, value: str | None
) -> User | None:
    """
    Return a user of the system, and their group.

    Raises:
        BadParameter: There is no such user, or this process may not become them.
    """
    if value is None:
        return None
    try:
        found = pwd.getpwnam(value)
    except KeyError:
        raise click.BadParameter(f"user {value!r} does not exist.") from None
    if os.geteuid() not in (0, found.pw_uid):
        raise click.BadParameter("only root can select another user.")
    return User(uid=found.pw_uid, gid=found.pw_gid)


def root_warning(
    isolation: Isolation, vault_user: User | None, front_end_user: User | None
) -> str:
    """Return a warning if processes run as root, or an empty text."""
    if os.geteuid() != 0:
        return ""
    if isolation is Isolation.INLINE:
        return (
            "The server runs as root, including the process that accepts "
            "connections. Start it as another user, or pass --isolation process "
            "with --vault-user and --front-end-user."
        )
    users = {"--vault-user": vault_user, "--front-end-user": front_end_user}
    flags = [flag for flag, user in users.items() if user is None or user.uid == 0]
    if not flags:
        return ""
    named = " and ".join(flags)
    return (
        f"The server and its child processes run as root. Pass {named} to run "
        "them as other users, or start the server as another user."
    )
