# SPDX-License-Identifier: MIT
"""Profile ``dev`` of a development server, in the folder of a user's configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import msgspec

from hsm_core.model import Record

__all__ = ["NO_HOME", "DevProfile", "config_folder", "dev_file", "user_path"]

NO_HOME: Final = Path("/~")
"""Home of a user who has none; no such folder exists."""


class DevProfile(Record, frozen=True, kw_only=True, rename="kebab"):
    """
    Profile of a running development server. The server writes it, and removes it.

    Attributes:
        endpoint: URL of the server.
        ca_bundle: PEM file of its CA.
        token_file: File of a bearer token.
        pid: Process ID of the server: the profile is void if there is none.
        audit_log: File of the audit log.
    """

    endpoint: str
    ca_bundle: Path
    token_file: Path
    pid: int
    audit_log: Path | None = None

    def to_toml(self) -> str:
        """Return the contents of the file."""
        # Deferred: clients only read it.
        import json

        entries: dict[str, Any] = msgspec.to_builtins(self, enc_hook=str)
        # A string of JSON is one of TOML.
        lines = [f"{key} = {json.dumps(value)}" for key, value in entries.items()]
        return "\n".join(["# Profile of hsm-server --dev, while it runs.", *lines, ""])


def config_folder() -> Path:
    """
    Return the folder of this user's configuration.

    Standard:
        XDG Base Directory Specification 0.8: a relative ``XDG_CONFIG_HOME`` is ignored.
    """
    home = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    base = home if home.is_absolute() else user_path("~/.config")
    return base / "ferrohsm"


def dev_file() -> Path:
    """Return the file of the profile."""
    return config_folder() / "dev.toml"


def user_path(path: str) -> Path:
    """
    Return a path that may begin with ``~``.

    Of a user without a home the result is below `NO_HOME`, and no error: containers run
    programs as such users, which need no profile.
    """
    return Path("/", os.path.expanduser(path))
