# SPDX-License-Identifier: MIT
"""How the command line names the users that processes run as."""

from __future__ import annotations

import os
import pwd

import click

from hsm_server.plan import User

__all__ = ["parse_user"]


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
        raise click.BadParameter(f"there is no user {value!r}.") from None
    if os.geteuid() not in (0, found.pw_uid):
        raise click.BadParameter("only root can choose another user.")
    return User(uid=found.pw_uid, gid=found.pw_gid)
