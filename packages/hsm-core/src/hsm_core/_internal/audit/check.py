# SPDX-License-Identifier: MIT
"""Follower: checks every audit record against the previous one."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from hsm_core._internal.audit.keys import EPOCH, record_mac_function
from hsm_core._internal.audit.mark import HeadMark
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import (
    FORMAT,
    FRAME,
    GENESIS,
    decode_event,
    is_log_id,
    leaf_hash,
)
from hsm_core._internal.lib import envelope
from hsm_core._internal.lib.stored_form import newer_format
from hsm_core.errors import AuditTamperedError, MalformedError
from hsm_core.model import AuditEvent


class Follower:
    """
    Checks the records of one trail in order.

    Args:
        log_id: 32 hex digits; None accepts the id in the first record.

        hmac_key: None leaves the MACs unchecked.

        seq: The record before the first one to follow.

        leaf_hash: Its leaf hash; empty accepts the one in the first record.

        mark: Head mark; the record that it names must match it.

    Attributes:
        seq: The newest record that was followed; -1 for none.
        leaf_hash: Its leaf hash, hex.
    """

    def __init__(
        self,
        *,
        log_id: str | None,
        hmac_key: bytes | None,
        seq: int = -1,
        leaf_hash: str = GENESIS,
        mark: HeadMark | None = None,
    ) -> None:
        self.seq = seq
        self.leaf_hash = leaf_hash
        self.mark = mark
        self._hmac_key = hmac_key
        self._log_id = log_id
        self._mac_of: Callable[[bytes], bytes] | None = None
        if log_id is not None and hmac_key is not None:
            self._mac_of = record_mac_function(hmac_key, log_id)

    @property
    def log_id(self) -> str:
        """Id of the audit log; empty until the first record is followed."""
        return self._log_id or ""

    def follow(self, line: bytes) -> AuditEvent:
        """
        Check the next line, given without its newline, and move on to it.

        Raises:
            AuditTamperedError: It is not the next record; nothing has moved.
        """
        seq = self.seq + 1
        event = self._authentic(line, seq)
        if event.seq != seq:
            raise tampered(Reason.SEQUENCE, seq)
        if self.leaf_hash and event.prev != self.leaf_hash:
            raise tampered(Reason.CHAIN, seq)
        leaf = leaf_hash(line)
        mark = self.mark
        if mark is not None and mark.seq == seq and mark.leaf_hash != leaf:
            raise tampered(Reason.MARK, seq)
        self.seq, self.leaf_hash = seq, leaf
        return event

    def start_after(self, line: bytes, seq: int) -> None:
        """
        Start after a record without checking the records before it.

        Args:
            line: The record, without its newline.

            seq: Sequence number to report if it is bad.

        Raises:
            AuditTamperedError: It is no record of this trail.
        """
        event = self._authentic(line, seq)
        self.seq, self.leaf_hash = event.seq, leaf_hash(line)

    def is_record(self, line: bytes) -> bool:
        """Return whether this is a record of this audit log, at any position."""
        try:
            self._authentic(line, self.seq + 1)
        except AuditTamperedError:
            return False
        return True

    def _authentic(self, line: bytes, seq: int) -> AuditEvent:
        try:
            payload, mac = envelope.split(FRAME, line)
        except MalformedError:
            raise tampered(Reason.FRAMING, seq) from None
        if self._log_id is None:
            self._adopt_log_id(payload, seq)
        mac_of = self._mac_of
        if mac_of is not None and not hmac.compare_digest(mac, mac_of(payload)):
            raise tampered(Reason.MAC, seq)
        event = decode_event(payload)
        if event is None or event.format != FORMAT:
            raise _unreadable(payload, seq)
        if event.log_id != self._log_id:
            raise tampered(Reason.LOG_ID, seq)
        if event.epoch != EPOCH:
            raise tampered(Reason.EPOCH, seq)
        return event

    def _adopt_log_id(self, payload: bytes, seq: int) -> None:
        event = decode_event(payload)
        if event is None or not is_log_id(event.log_id):
            raise _unreadable(payload, seq)
        self._log_id = event.log_id
        if self._hmac_key is not None:
            self._mac_of = record_mac_function(self._hmac_key, event.log_id)


def _unreadable(payload: bytes, seq: int) -> AuditTamperedError:
    is_newer = newer_format(payload, FORMAT)
    return tampered(Reason.FORMAT if is_newer else Reason.EVENT, seq)
