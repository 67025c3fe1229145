# SPDX-License-Identifier: MIT
"""
Stored form of a use counter: counts with a MAC.

``FHKU`` ‖ 01 ‖ flags (1 byte) ‖ uses ‖ bytes ‖ last use (8 bytes each) ‖ MAC.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

_START: Final = b"FHKU\x01"
_COUNTS: Final = struct.Struct(">5sBQQQ")
_MAC_BYTES: Final = 32
_WARNED: Final = 1

MacOf = Callable[[str, bytes], bytes]
"""MAC of a material's counts, bound to the store."""


class UseValue(NamedTuple):
    """
    Upper bound of a material's counts; larger counts are stored first.

    Attributes:
        size: Bytes that were protected.
        last_used_at: Microseconds since 1970, or 0.
        warned: Whether the audit log has the warning near the limit.
    """

    uses: int = 0
    size: int = 0
    last_used_at: int = 0
    warned: bool = False


def encode_value(material_id: str, value: UseValue, mac_of: MacOf) -> bytes:
    """Return the stored form of a material's counts."""
    flags = _WARNED if value.warned else 0
    counts = _COUNTS.pack(_START, flags, value.uses, value.size, value.last_used_at)
    return counts + mac_of(material_id, counts)


def decode_value(material_id: str, stored: bytes, mac_of: MacOf) -> UseValue | None:
    """Authenticate and decode a stored form; None if it was altered."""
    counts, mac = stored[:-_MAC_BYTES], stored[-_MAC_BYTES:]
    if len(counts) != _COUNTS.size:
        return None
    if not hmac.compare_digest(mac, mac_of(material_id, counts)):
        return None
    start, flags, uses, size, last_used_at = _COUNTS.unpack(counts)
    if start != _START or flags & ~_WARNED:
        return None
    return UseValue(uses, size, last_used_at, bool(flags))
