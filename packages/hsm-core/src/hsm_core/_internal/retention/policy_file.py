# SPDX-License-Identifier: MIT
"""Retention policy file: watched, and adopted when its content is complete."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hsm_core._access_lists import others_may_change
from hsm_core._regular_files import open_regular
from hsm_core.errors import ConfigurationError, UnsafeFileModeError
from hsm_core.protocols import Clock
from hsm_core.retention_policy import (
    MAX_BYTES,
    RetentionPolicy,
    parse_retention_policy,
)

_SETTLED_SECONDS: Final = 2.0
"""Time that new content must stay unchanged before it is adopted: a partly written file
may be valid, with fewer and shorter windows."""


@dataclass(slots=True)
class _Seen:
    digest: bytes
    since: float


class RetentionPolicyFile:
    """
    Retention policy in force: the last valid content of a file.

    A missing, empty or invalid file changes only `problem`. If there never was a valid
    one, there is no policy, and nothing is purged.

    Args:
        path: Of the file.

        clock: Time.

    Attributes:
        policy: In force; None while there is none.
        loaded_at: Since when, microseconds since 1970; 0 while there is none.
        problem: Current fault of the file, or empty.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._seen = _Seen(b"", 0.0)
        self._adopted = b""
        self.policy: RetentionPolicy | None = None
        self.loaded_at = 0
        self.problem = ""

    def look(self) -> bool:
        """
        Read the file, and adopt new valid content that is unchanged for two seconds.

        Returns:
            Whether to read again soon, because new content is not old enough.
        """
        try:
            content = self._read()
            digest = hashlib.sha256(content).digest()
            policy = parse_retention_policy(content)
        except ConfigurationError as error:
            self.problem = str(error)
            self._seen = _Seen(b"", 0.0)
            return False
        if digest == self._adopted:
            self.problem = ""
            return False
        now = self._clock.monotonic()
        if digest != self._seen.digest:
            self._seen = _Seen(digest, now)
        if now - self._seen.since < _SETTLED_SECONDS:
            return True
        self.policy, self._adopted, self.problem = policy, digest, ""
        self.loaded_at = self._clock.now()
        return False

    def _read(self) -> bytes:
        try:
            with open_regular(self._path) as file:
                if others_may_change(file.fileno()):
                    raise UnsafeFileModeError(
                        "Other users can write the retention policy. It must "
                        "belong to root or this user, and be writable by its "
                        "owner only."
                    )
                return file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ConfigurationError(
                f"The retention policy can't be read: {error.strerror}."
            ) from None
