# SPDX-License-Identifier: MIT
"""
Files of settings: YAML, or JSON if the text begins with ``{``, read strictly.

Nothing in them makes an object of a class it chose, repeats a name or refers to
another place; an unknown field is an error that names line and field.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from hsm_core._access_lists import is_open_to_others, others_may_change
from hsm_core._policies.policy_file import MAX_BYTES, misfit, read_tree
from hsm_core._regular_files import open_regular
from hsm_core.errors import ConfigurationError, InvalidInputError, UnsafeFileModeError

__all__ = ["MAX_SETTING_BYTES", "SettingFile", "parse_settings", "read_setting_file"]

T = TypeVar("T")

MAX_SETTING_BYTES: Final = MAX_BYTES
"""Maximum file size, in bytes."""


@dataclass(frozen=True, slots=True, repr=False)
class SettingFile:
    """
    Content and access of a settings file.

    Attributes:
        data: Its bytes.
        is_open_to_others: Whether anybody but its owner, root and this process may
            read it; a secret must not lie in such a file.
    """

    data: bytes
    is_open_to_others: bool


def read_setting_file(path: Path, *, field: str) -> SettingFile:
    """
    Return a file that others can't write to.

    Args:
        path: The file.

        field: Name of the setting, for messages.

    Raises:
        ConfigurationError: It can't be read, is no regular file, or is longer than
            `MAX_SETTING_BYTES`.
        UnsafeFileModeError: Others than root and this process' user may write to it.
    """
    try:
        with open_regular(path) as file:
            descriptor = file.fileno()
            if others_may_change(descriptor):
                raise UnsafeFileModeError(
                    f"{field}: {path} is writable by other users. It must be owned by "
                    "root or this user and writable by its owner only.",
                    field=field,
                )
            is_open = is_open_to_others(descriptor)
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "bad name"
        raise ConfigurationError(
            f"{field}: {path} can't be read ({problem}).", field=field
        ) from None
    if len(data) > MAX_BYTES:
        raise ConfigurationError(
            f"{field}: {path} must be at most {MAX_BYTES} bytes.", field=field
        )
    return SettingFile(data, is_open)


def parse_settings(data: bytes, cls: type[T], *, what: str) -> T:
    """
    Return the settings that a file states.

    Args:
        data: Its bytes.

        cls: The `Record` that they must fit.

        what: What messages call it, such as ``policy``.

    Raises:
        InvalidInputError: They don't fit; the message begins with the line, where it is
            known, and names the field.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InvalidInputError("It must be UTF-8.", field=what) from None
    tree, lines = read_tree(text, what)
    try:
        return msgspec.convert(tree, cls)
    except msgspec.ValidationError as error:
        raise misfit(str(error), lines) from None
