# SPDX-License-Identifier: MIT
"""Audit log walk: the recorded state of every key, and the place of set digests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

from hsm_core._internal.audit.events import verified_events
from hsm_core._internal.audit.known import KnownKeys
from hsm_core.errors import InvalidInputError
from hsm_core.model import KeyId, KeyState
from hsm_core.operations import AuditVerification
from hsm_core.protocols import AuditLog, KnownKey

_PURGES: Final = "PurgeVersion"
_KEYS: Final = 64
"""Length of the part of a set digest that covers keys."""


class AuditWalk:
    """
    Recorded state of every key, read from the start of the audit log.

    Args:
        audit: The trail.

        verify: Verifies a range of it.

        wanted: Set digests to find.

    Attributes:
        destroyed: Keys that were destroyed.
        changed: Keys that the remaining records changed.
        purged: Versions that the remaining records purged: the key's id, and the newest
            version of the material.
        met: Last record of each wanted digest: sequence number and time.
    """

    def __init__(
        self,
        audit: AuditLog,
        verify: Callable[[int, int], AuditVerification],
        wanted: Iterable[str] = (),
    ) -> None:
        self._audit = audit
        self._verify = verify
        self._wanted = frozenset(wanted)
        self._next = -1
        self._keys = KnownKeys()
        self.destroyed: set[KeyId] = set()
        self.changed: set[KeyId] = set()
        self.purged: set[tuple[KeyId, int]] = set()
        self.met: dict[str, tuple[int, int]] = {}
        self._begin()
        self.advance()

    def _begin(self) -> None:
        """Start with the baseline of pruned records."""
        while self._next != self._audit.first_seq:
            self._next = self._audit.first_seq
            self._keys = KnownKeys(self._audit.baseline())
        self.changed, self.purged, self.met = set(), set(), {}

    def advance(self) -> None:
        """Read the records since the last call."""
        while True:
            try:
                self._read()
            except InvalidInputError:
                # Unless it was pruned before it was read, nothing helps.
                if self._next >= self._audit.first_seq:
                    raise
                self._begin()
            else:
                break
        self.destroyed = {known.key_id for known in self._keys if known.destroyed}

    def _read(self) -> None:
        for event in verified_events(self._audit, self._verify, self._next):
            self._next = event.seq + 1
            if self._keys.note(event):
                self.changed.add(KeyId(event.key_id))
                if event.kind == _PURGES:
                    self.purged.add((KeyId(event.key_id), event.version))
            keys = event.set_digest[:_KEYS]
            if keys in self._wanted:
                self.met[keys] = event.seq, event.time

    def known(self) -> dict[KeyId, KnownKey]:
        """Return the recorded state of each key that should exist."""
        return {known.key_id: known for known in self._keys if known.digest}


def recorded_names(
    audit: AuditLog,
    verify: Callable[[int, int], AuditVerification],
    key_ids: Collection[KeyId],
) -> dict[KeyId, str]:
    """
    Return the names that keys had after their last recorded change.

    A destroyed key has an empty name. Keys without a remaining record are left out.

    Args:
        audit: The trail.

        verify: Verifies a range of it.

        key_ids: Keys to look up.

    Raises:
        AuditTamperedError: A record is bad.
        AuditUnavailableError: The trail can't be read.
    """
    found: dict[KeyId, str] = {}
    keys = KnownKeys()
    for event in verified_events(audit, verify, audit.first_seq):
        key_id = KeyId(event.key_id)
        if key_id in key_ids and keys.note(event) and event.key is not None:
            is_destroyed = event.key.state == KeyState.DESTROYED
            found[key_id] = "" if is_destroyed else event.key.name
    return found
