# SPDX-License-Identifier: MIT
"""Changes of the profiles' file, which keep its comments and order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

# A library, because the file is the user's own, and Python only reads TOML.
import tomlkit

from hsm_client.profiles import Profile, check_profile_name, config_file, load_profiles
from hsm_core.dev_profile import config_folder
from hsm_core.private_files import locked_file, read_private_file, write_private_file


def save_profile(profile: Profile) -> None:
    """
    Add or replace a profile, and make it the current one.

    Raises:
        ConfigurationError: The name is reserved, or the file can't be written.
        UnsafeFileModeError: Other users have access to the file.
    """
    check_profile_name(profile.name)
    with _changed() as document:
        table = msgspec.to_builtins(profile, enc_hook=str)
        del table["name"]
        profiles = document.setdefault("profiles", tomlkit.table(is_super_table=True))
        profiles[profile.name] = {key: table[key] for key in table}
        document["current"] = profile.name


def use_profile(name: str) -> Profile:
    """
    Make a profile the current one, and return it.

    Raises:
        ConfigurationError: There is no such profile, its name is reserved, or the file
            can't be written.
        UnsafeFileModeError: Other users have access to the file.
    """
    profile = load_profiles().get(check_profile_name(name))
    with _changed() as document:
        document["current"] = name
    return profile


@contextmanager
def _changed() -> Iterator[Any]:
    """Give the document of the file, and write it with its changes."""
    path = config_file()
    with locked_file(config_folder() / "config.lock"):
        # Refuses a file that is invalid, before anything of it is changed.
        load_profiles()
        text = (read_private_file(path) or b"").decode()
        document = tomlkit.parse(text)
        if "current" not in document:
            # Above the tables: below them it would belong to the last one.
            document = tomlkit.parse(f'current = ""\n{text}')
        yield document
        write_private_file(path, tomlkit.dumps(document).encode())
