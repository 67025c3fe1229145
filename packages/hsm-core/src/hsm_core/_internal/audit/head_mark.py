# SPDX-License-Identifier: MIT
"""
Head mark: authenticated end of the audit log, in a file beside it.

It distinguishes a tail torn by a crash from a truncated log. The file has a header and
two slots, written in turn, each in its own sector, so that one slot is intact even if a
write of the other fails.
"""

from __future__ import annotations

import hmac
import re
import struct
from collections.abc import Mapping
from typing import Final

import msgspec

from hsm_core._internal.audit.keys import key_check_value, mark_mac_function
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import GENESIS
from hsm_core.errors import AuditTamperedError, WrongAuditKeyError

_MAGIC: Final = b"FerroHSM head 1\n"
_NEWER: Final = re.compile(rb"FerroHSM head [2-9]\n")
_SECTOR: Final = 512
_HEADER: Final = struct.Struct(">16s16s32s")
_SLOT: Final = struct.Struct(">Qqq?32sB128s")
_MAC_BYTES: Final = 32

HEAD_BYTES: Final = 3 * _SECTOR
"""Length of the file."""


class HeadMark(msgspec.Struct, frozen=True, kw_only=True):
    """
    State of the log after a sync.

    Attributes:
        seq: Newest synced record, -1 for none.
        leaf_hash: Its leaf hash, hex; 64 zeros for none.
        floor: Lowest seq of an intent without outcome, or seq + 1.
        clean: The log was closed cleanly here.
        set_digest: The newest set digest in any record up to here, or empty.
    """

    seq: int = -1
    leaf_hash: str = GENESIS
    floor: int = 0
    clean: bool = False
    set_digest: str = ""


class StoredHead(msgspec.Struct, frozen=True):
    """Content of a head file: audit log id, newest mark, and its counter."""

    log_id: str
    counter: int
    mark: HeadMark


class HeadCodec:
    """
    Reads and writes the parts of one log's head file.

    Args:
        log_id: 32 hex digits.
    """

    def __init__(self, hmac_key: bytes, log_id: str) -> None:
        self.log_id = log_id
        self._mac_of = mark_mac_function(hmac_key, log_id)
        self.header = _HEADER.pack(
            _MAGIC, bytes.fromhex(log_id), key_check_value(hmac_key)
        )

    def new_file(self) -> bytes:
        """Return the content of a new log's file, whose newest counter is 1."""
        slots = (self.slot(counter, HeadMark())[1] for counter in (0, 1))
        return self.header.ljust(_SECTOR, b"\0") + b"".join(slots)

    def slot(self, counter: int, mark: HeadMark) -> tuple[int, bytes]:
        """Return the offset and the 512 bytes of the slot that *counter* writes."""
        digest = mark.set_digest.encode()
        body = _SLOT.pack(
            counter,
            mark.seq,
            mark.floor,
            mark.clean,
            bytes.fromhex(mark.leaf_hash),
            len(digest),
            digest,
        )
        stored = (body + self._mac_of(self.header + body)).ljust(_SECTOR, b"\0")
        return _SECTOR * (1 + counter % 2), stored

    def read_slot(self, stored: bytes) -> tuple[int, HeadMark] | None:
        """Return counter and mark of a slot, or None if it is not whole."""
        body = stored[: _SLOT.size]
        mac = stored[_SLOT.size : _SLOT.size + _MAC_BYTES]
        if not hmac.compare_digest(mac, self._mac_of(self.header + body)):
            return None
        counter, seq, floor, clean, leaf, length, digest = _SLOT.unpack(body)
        try:
            set_digest = digest[:length].decode()
        except UnicodeDecodeError:
            return None
        mark = HeadMark(
            seq=seq,
            leaf_hash=leaf.hex(),
            floor=floor,
            clean=clean,
            set_digest=set_digest,
        )
        return counter, mark

    @classmethod
    def read(cls, content: bytes, hmac_key: bytes) -> StoredHead:
        """
        Authenticate a head file and return its newest mark.

        Raises:
            WrongAuditKeyError: It was written with another HMAC key.
            AuditTamperedError: It was altered by another program.
        """
        if _NEWER.match(content):
            raise tampered(Reason.FORMAT, 0)
        if len(content) != HEAD_BYTES:
            raise _damaged()
        slots = {at: content[at : at + _SECTOR] for at in (_SECTOR, 2 * _SECTOR)}
        found = cls.authenticate(content[: _HEADER.size], slots, hmac_key)
        if any(content[_HEADER.size : _SECTOR]):
            raise _damaged()
        return found

    @classmethod
    def authenticate(
        cls, header: bytes, slots: Mapping[int, bytes], hmac_key: bytes
    ) -> StoredHead:
        """
        Return the newest mark of slots, given by their offsets; -1 stands for any.

        Raises:
            WrongAuditKeyError: They were written with another HMAC key.
            AuditTamperedError: They were altered by another program.
        """
        if len(header) != _HEADER.size or not header.startswith(_MAGIC):
            raise _damaged()
        _, log_id, check = _HEADER.unpack(header)
        codec = cls(hmac_key, log_id.hex())
        found = []
        for offset, slot in slots.items():
            read = codec.read_slot(slot)
            # Padding and place are not under the MAC. Where they are wrong the other
            # slot counts, as after a torn write.
            if read is not None:
                place, whole = codec.slot(*read)
                if offset in (place, -1) and slot == whole:
                    found.append(read)
        if not found and not hmac.compare_digest(check, key_check_value(hmac_key)):
            raise WrongAuditKeyError
        if not found or header != codec.header:
            raise _damaged()
        counter, mark = max(found, key=lambda slot: slot[0])
        return StoredHead(codec.log_id, counter, mark)


def _damaged() -> AuditTamperedError:
    return tampered(Reason.HEAD_DAMAGED, 0)
