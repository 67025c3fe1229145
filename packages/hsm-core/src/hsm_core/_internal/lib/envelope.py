# SPDX-License-Identifier: MIT
"""
Shared framing of audit records and key documents.

``{"<name>":<payload>,"mac":"<64 hex>"}``: the MAC stands at a fixed distance from the
end, so a reader cuts the line by position and never re-encodes anything.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

from hsm_core.errors import MalformedError

_MIDDLE: Final = b',"mac":"'
_END: Final = b'"}'
_HEX: Final = b"0123456789abcdef"
_TAIL_BYTES: Final = len(_MIDDLE) + 64 + len(_END)


def join(name: bytes, payload: bytes, mac: bytes) -> bytes:
    """Return the framed form of *payload*; *mac* is 32 bytes."""
    return b'{"%b":%b%b%b%b' % (name, payload, _MIDDLE, mac.hex().encode(), _END)


def split(name: bytes, framed: bytes) -> tuple[bytes, bytes]:
    """
    Return payload and MAC of a framed form.

    Raises:
        MalformedError: It is framed in any other way.
    """
    start, tail = b'{"%b":' % name, framed[-_TAIL_BYTES:]
    digits = tail[len(_MIDDLE) : -len(_END)]
    if (
        len(framed) <= len(start) + _TAIL_BYTES
        or not framed.startswith(start)
        or not tail.startswith(_MIDDLE)
        or not tail.endswith(_END)
        or digits.translate(None, _HEX)
    ):
        raise MalformedError("The record's framing is invalid.")
    return framed[len(start) : -_TAIL_BYTES], bytes.fromhex(digits.decode())


def check(name: bytes, framed: bytes, mac_of: Callable[[bytes], bytes]) -> bytes | None:
    """Return the payload if its MAC is right, else None; constant time for the MAC."""
    payload, mac = split(name, framed)
    return payload if hmac.compare_digest(mac, mac_of(payload)) else None
