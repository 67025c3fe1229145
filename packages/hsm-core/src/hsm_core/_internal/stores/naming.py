# SPDX-License-Identifier: MIT
"""
Name checks before a store uses a name in a path.

Whole-string patterns of ASCII characters: no separator, no dot in front, one spelling
for one thing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from hsm_core.errors import InvalidInputError
from hsm_core.protocols import KeyChange

_KEY_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_OPERATION_ID: Final = re.compile(r"[0-9a-z][0-9a-z-]{0,63}")
_META_NAME: Final = re.compile(r"[a-z][a-z0-9._-]{0,63}")
_LAST_VERSION: Final = 99_999_999


def is_key_id(text: str) -> bool:
    """Return whether *text* is a UUID in lower-case canonical form (RFC 9562)."""
    return _KEY_ID.fullmatch(text) is not None


def check_material_id(material_id: str) -> None:
    """
    Check the id of a material.

    Raises:
        InvalidInputError: It is not a UUID in lower-case canonical form.
    """
    if not is_key_id(material_id):
        raise InvalidInputError("material_id has an invalid form.")


def check_operation_id(operation_id: str) -> None:
    """
    Check an operation id.

    Raises:
        InvalidInputError: It is not 1 to 64 lower-case letters, digits and hyphens.
    """
    if not _OPERATION_ID.fullmatch(operation_id):
        raise InvalidInputError("operation_id has an invalid form.")


def check_meta_name(name: str) -> None:
    """
    Check the name of a small value.

    Raises:
        InvalidInputError: It is not 1 to 64 lower-case letters, digits, dots, hyphens
            and underscores, a letter first.
    """
    if not _META_NAME.fullmatch(name):
        raise InvalidInputError("name has an invalid form.")


def check_change(change: KeyChange) -> None:
    """
    Check every name in a change.

    Raises:
        InvalidInputError: A key id, operation id or version can't be one.
    """
    check_operation_id(change.operation_id)
    check_versions(change.entry.key_id, (*change.blobs, *change.removed_blobs))


def check_versions(key_id: str, versions: Iterable[int]) -> None:
    """
    Check the names of the sealed blobs of a key.

    Raises:
        InvalidInputError: The key id or a version can't be one.
    """
    if not is_key_id(key_id):
        raise InvalidInputError("key_id must be a UUID in lower-case canonical form.")
    for version in versions:
        if not 1 <= version <= _LAST_VERSION:
            raise InvalidInputError(f"version must be between 1 and {_LAST_VERSION}.")
