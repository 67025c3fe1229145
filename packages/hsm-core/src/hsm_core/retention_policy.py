# SPDX-License-Identifier: MIT
"""
Retention policy: how long old key versions are kept before a purge.

It is a YAML or JSON file; `parse_retention_policy` reads it, offline too.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Annotated, Final

import msgspec

from hsm_core._policies.policy_file import misfit, read_tree
from hsm_core.errors import ConfigurationError, InvalidInputError
from hsm_core.model import Record
from hsm_core.operations.base import KeyReference, Tag

__all__ = [
    "DEFAULT_DAYS",
    "MAX_BYTES",
    "MOST_DAYS",
    "RetentionOverride",
    "RetentionPolicy",
    "parse_retention_policy",
]

DEFAULT_DAYS: Final = 365
"""Default retention window, in days."""

MAX_BYTES: Final = 64 * 1024
"""Maximum file size, in bytes."""

MOST_DAYS: Final = 36_500
"""Maximum retention window, in days."""

_Days = Annotated[int, msgspec.Meta(ge=1, le=MOST_DAYS)]


class RetentionOverride(Record, frozen=True, kw_only=True):
    """
    The window of one key, or of one of its versions.

    Attributes:
        key_id: Id or name of the key.
        days: Length of the window, in days of 86,400 seconds.
        version: None for all of its versions.
    """

    key_id: KeyReference
    days: _Days
    version: Annotated[int, msgspec.Meta(ge=1, le=99_999_999)] | None = None


class RetentionPolicy(Record, frozen=True, kw_only=True):
    """
    Windows by tag, by key, and of all others; the longest that concerns a version wins.

    Attributes:
        default_days: Window of versions that no tag and no override concerns.
        tags: Window by tag of the key; it may be shorter than the default.
        overrides: One for each key and version.
    """

    default_days: _Days = DEFAULT_DAYS
    tags: Annotated[dict[Tag, _Days], msgspec.Meta(max_length=1000)] = msgspec.field(
        default_factory=dict
    )
    overrides: Annotated[
        tuple[RetentionOverride, ...], msgspec.Meta(max_length=1000)
    ] = ()

    @property
    def sha256(self) -> str:
        """Digest of what it says, hex; white space and order of the file are none."""
        ordered = msgspec.structs.replace(
            self,
            tags=dict(sorted(self.tags.items())),
            overrides=tuple(
                sorted(self.overrides, key=lambda o: (o.key_id, o.version or 0))
            ),
        )
        return hashlib.sha256(msgspec.json.encode(ordered)).hexdigest()


def parse_retention_policy(data: bytes) -> RetentionPolicy:
    """
    Read a retention policy.

    Args:
        data: The content of the file, YAML or JSON.

    Raises:
        ConfigurationError: It is empty, broken, or breaks a limit; the message names
            the field or the line. No window is ever shorter than a day.

    Example:
        >>> parse_retention_policy(b"tags: {test.ephemeral: 30}").default_days
        365
    """
    if len(data) > MAX_BYTES:
        raise ConfigurationError(
            f"The retention policy must be at most {MAX_BYTES} bytes."
        )
    try:
        policy = _converted(data.decode())
    except UnicodeDecodeError:
        raise ConfigurationError("The retention policy must be UTF-8.") from None
    except InvalidInputError as error:
        raise ConfigurationError(f"Not a valid retention policy: {error}") from None
    named = Counter((o.key_id, o.version) for o in policy.overrides)
    for (key_id, version), count in named.items():
        if count > 1:
            which = f"version {version}" if version else "all versions"
            raise ConfigurationError(
                f"Not a valid retention policy: overrides list {key_id!r}, {which}, "
                f"{count} times."
            )
    return policy


def _converted(text: str) -> RetentionPolicy:
    tree, lines = read_tree(text)
    try:
        return msgspec.convert(tree, RetentionPolicy)
    except msgspec.ValidationError as error:
        raise misfit(str(error), lines) from None
