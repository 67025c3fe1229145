# SPDX-License-Identifier: MIT
"""
Audit keys, each for one use, all derived from the HMAC key.

HKDF-SHA-256 (RFC 5869) with the log id as salt and a label with the epoch as info.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

from hsm_core._internal.lib.encoding import (
    hkdf_sha256,
    length_prefixed,
    mac_function,
)

EPOCH: Final = 0
"""The only key epoch of format 1: the key never changes within an audit log."""

_RECORD_LABEL: Final = b"FerroHSM audit record 1"
_MARK_LABEL: Final = b"FerroHSM audit head mark 1"
_BASELINE_LABEL: Final = b"FerroHSM audit baseline 1"
_CHECK_LABEL: Final = b"FerroHSM audit key check 1"


def record_mac_function(hmac_key: bytes, log_id: str) -> Callable[[bytes], bytes]:
    """Return the MAC over the bytes of an event, for one trail."""
    return _mac_function(hmac_key, log_id, _RECORD_LABEL)


def mark_mac_function(hmac_key: bytes, log_id: str) -> Callable[[bytes], bytes]:
    """Return the MAC over a slot of the head mark, for one trail."""
    return _mac_function(hmac_key, log_id, _MARK_LABEL)


def baseline_mac(hmac_key: bytes, log_id: str) -> hmac.HMAC:
    """Return the MAC over a baseline, to be updated with its bytes."""
    mac = hmac.new(_key(hmac_key, log_id, _BASELINE_LABEL), digestmod="sha256")
    mac.update(_BASELINE_LABEL + b"\0")
    return mac


def key_check_value(hmac_key: bytes) -> bytes:
    """
    Return 32 bytes by which the HMAC key is recognised.

    They are the same for every audit log of one key, so that an edited log id is not
    mistaken for a wrong key.
    """
    return hkdf_sha256(hmac_key, salt=b"", info=length_prefixed(_CHECK_LABEL))


def _mac_function(
    hmac_key: bytes, log_id: str, label: bytes
) -> Callable[[bytes], bytes]:
    return mac_function(_key(hmac_key, log_id, label), label + b"\0")


def _key(hmac_key: bytes, log_id: str, label: bytes) -> bytes:
    return hkdf_sha256(
        hmac_key,
        salt=bytes.fromhex(log_id),
        info=length_prefixed(label, EPOCH.to_bytes(8, "big")),
    )
