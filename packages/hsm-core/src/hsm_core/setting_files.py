# SPDX-License-Identifier: MIT
"""
Files of settings: YAML, or JSON if the text begins with ``{``, read strictly.

Nothing in them makes an object of a class it chose, repeats a name or refers to
another place; an unknown field is an error that names line and field.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from hsm_core._files import MAX_SETTING_BYTES, SettingFile, read_file_of_settings
from hsm_core.errors import ConfigurationError, InvalidInputError

__all__ = ["MAX_SETTING_BYTES", "SettingFile", "parse_settings", "read_setting_file"]

T = TypeVar("T")


def read_setting_file(path: Path, *, field: str) -> SettingFile:
    """
    Return a file that others can't write to.

    Args:
        path: The file.

        field: Name of the setting, for messages.

    Raises:
        ConfigurationError: It can't be read, is no regular file, or is longer than
            ``MAX_SETTING_BYTES``.
        UnsafeFileModeError: Others than root and this process' user may write to it.
    """
    file = read_file_of_settings(path, field=field, limit=MAX_SETTING_BYTES)
    if len(file.data) > MAX_SETTING_BYTES:
        raise ConfigurationError(
            f"{field}: {path} must be at most {MAX_SETTING_BYTES} bytes.", field=field
        )
    return file


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
    # It loads YAML, which most programs that import this never read.
    from hsm_core._policies.policy_file import misfit, read_tree

    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InvalidInputError("It must be UTF-8.", field=what) from None
    tree, lines = read_tree(text, what)
    try:
        return msgspec.convert(tree, cls)
    except msgspec.ValidationError as error:
        raise misfit(str(error), lines) from None
