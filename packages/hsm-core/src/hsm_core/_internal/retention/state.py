# SPDX-License-Identifier: MIT
"""
Retention state that survives restarts, apart from keys and ledger.

It is stored beside the keys, authenticated. It holds only conditions that delay purges:
clock jumps, approved purges above the limit, and the known end of the ledger. Approvals
and grace periods do not depend on it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core._internal.lib import envelope
from hsm_core._internal.lib.stored_form import StoredForm
from hsm_core.errors import MalformedError
from hsm_core.protocols import KeyStore

_META: Final = "retention"
_NAME: Final = b"retention"
_FORMAT: Final = 1


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
        leaps_allowed: Leaps of the clock that ended before this instant count as time
            that has passed.
        anchor: Last position of the ledger recorded in the audit log.
        asked: Newest approval request of each operation, by a digest of the operation.
    """

    format: int = _FORMAT
    store_id: str = ""
    pauses: tuple[Pause, ...] = ()
    leaps_allowed: int = 0
    allowance: Allowance | None = None
    anchor: LedgerAnchor | None = None
    asked: dict[str, str] = msgspec.field(default_factory=dict)


_ENCODER: Final = msgspec.json.Encoder()
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
        self._store.write_meta(_META, envelope.join(_NAME, payload, mac))
        self._state = state

    def _read(self) -> RetentionState:
        stored = self._store.read_meta(_META)
        if stored is None:
            return RetentionState()
        try:
            payload = envelope.check(_NAME, stored, self._ring.retention_mac)
            if payload is not None:
                found = _DECODER.decode(payload)
                is_ours = found.store_id == self._ring.store_id
                if is_ours and found.format == _FORMAT:
                    return msgspec.structs.replace(found, store_id="")
        except (MalformedError, msgspec.DecodeError, UnicodeDecodeError):
            pass
        return RetentionState(pauses=(LOST,))
