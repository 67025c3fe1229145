# SPDX-License-Identifier: MIT
"""Keys of an audit log, all derived from its HMAC key."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hsm_core._internal.lib.encoding import hkdf_sha256, length_prefixed, mac_function

_EPOCH: Final = bytes(8)
_RECORD_LABEL: Final = b"FerroHSM audit record 2"
_BIND_LABEL: Final = b"FerroHSM audit bind 1"
_MARK_LABEL: Final = b"FerroHSM audit head mark 1"
_BASELINE_LABEL: Final = b"FerroHSM audit baseline 1"
_CHECK_LABEL: Final = b"FerroHSM audit key check 1"
SALT_BYTES: Final = 16
"""Length of a salt of ``bind``."""


def record_mac_function(hmac_key: bytes, log_id: str) -> Callable[[bytes], bytes]:
    """Return the MAC over an entry up to its MAC, for one log."""
    return _mac_function(hmac_key, log_id, _RECORD_LABEL)


def salts_function(hmac_key: bytes, log_id: str) -> Callable[[int], bytes]:
    """Return the salts of ``bind``, of 256 entries from a seq on, joined."""
    key = algorithms.AES256(_key(hmac_key, log_id, _BIND_LABEL))
    # One block for each seq, and none twice.
    encryptor = Cipher(key, modes.ECB()).encryptor()  # noqa: S305

    def salts(first: int) -> bytes:
        numbers = range(first, first + 256)
        blocks = [n.to_bytes(SALT_BYTES, "big") for n in numbers]
        return encryptor.update(b"".join(blocks))

    return salts


def mark_mac_function(hmac_key: bytes, log_id: str) -> Callable[[bytes], bytes]:
    """Return the MAC over a slot of the head mark, for one log."""
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
        info=length_prefixed(label, _EPOCH),
    )
