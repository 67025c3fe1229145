# SPDX-License-Identifier: MIT
"""
Retention policy file, and retention state that survives restarts.

It is stored beside the keys, authenticated. It holds only conditions that delay purges:
clock jumps, approved purges above the limit, and the known end of the ledger. Approvals
and grace periods do not depend on it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import msgspec

from hsm_core._files import read_file_of_settings
from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core._internal.lib import encoding
from hsm_core._internal.lib.encoding import StoredForm
from hsm_core.errors import ConfigurationError, MalformedError
from hsm_core.protocols import Clock, KeyStore
from hsm_core.retention_policy import MAX_BYTES, RetentionPolicy, parse_retention_policy

_META: Final = "retention"
_NAME: Final = b"retention"
_FORMAT: Final = 1
_ENCODER: Final = msgspec.json.Encoder()
_SETTLED_SECONDS: Final = 2.0
"""Time that new content must stay unchanged before it is adopted: a partly written file
may be valid, with fewer and shorter windows."""


class Pause(StoredForm, frozen=True, kw_only=True):
    """
    Pause of purges until a separate approval.

    Attributes:
        cause: ``leap``, ``limit``, or ``state`` if the stored state is lost.
        count: How many purges were waiting when it began.
        since: When that was, microseconds since 1970.
    """

    cause: str
    count: int
    since: int


LOST: Final = Pause(cause="state", count=0, since=0)
"""Pause after the stored state was lost."""


class Allowance(StoredForm, frozen=True, kw_only=True):
    """Approved number of purges above the limit, and its expiry."""

    purges: int
    until: int


class LedgerAnchor(StoredForm, frozen=True, kw_only=True):
    """Position of the ledger that is recorded in the audit log."""

    log_id: str
    seq: int
    leaf_hash: str


class RetentionState(StoredForm, frozen=True, kw_only=True):
    """
    Complete retention state.

    Attributes:
        pauses: One for each cause.
        jumps_allowed: Clock jumps that ended before this instant count as time
            that has passed.
        anchor: Last position of the ledger recorded in the audit log.
        asked: Newest approval request of each operation, by a digest of the operation.
    """

    format: int = _FORMAT
    store_id: str = ""
    pauses: tuple[Pause, ...] = ()
    jumps_allowed: int = msgspec.field(default=0, name="leaps_allowed")
    allowance: Allowance | None = None
    anchor: LedgerAnchor | None = None
    asked: dict[str, str] = msgspec.field(default_factory=dict)


_DECODER: Final = msgspec.json.Decoder(RetentionState)


class StateFile:
    """
    Stored retention state.

    Args:
        store: Of the keys; not trusted.

        ring: Authenticates it.

    A state with a wrong MAC counts as lost, and starts a pause.
    """

    def __init__(self, store: KeyStore, ring: KeyRing) -> None:
        self._store = store
        self._ring = ring
        self._state = self._read()

    @property
    def state(self) -> RetentionState:
        """Last stored state."""
        return self._state

    def put(self, state: RetentionState) -> None:
        """
        Store the state durably, if it changed.

        Raises:
            StoreUnavailableError: It can't be written.
        """
        if state == self._state:
            return
        payload = _ENCODER.encode(
            msgspec.structs.replace(state, store_id=self._ring.store_id)
        )
        mac = self._ring.retention_mac(payload)
        self._store.write_meta(_META, encoding.join(_NAME, payload, mac))
        self._state = state

    def _read(self) -> RetentionState:
        stored = self._store.read_meta(_META)
        if stored is None:
            return RetentionState()
        try:
            payload = encoding.check(_NAME, stored, self._ring.retention_mac)
            if payload is not None:
                found = _DECODER.decode(payload)
                is_ours = found.store_id == self._ring.store_id
                if is_ours and found.format == _FORMAT:
                    return msgspec.structs.replace(found, store_id="")
        except (MalformedError, msgspec.DecodeError, UnicodeDecodeError):
            pass
        return RetentionState(pauses=(LOST,))


class _Seen(msgspec.Struct):
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
            content = read_file_of_settings(
                self._path, field="retention_config", limit=MAX_BYTES
            ).data
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
