# SPDX-License-Identifier: MIT
"""Slot and token: what programs read of them."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from hsm_cli.__about__ import __version__
from hsm_cli.interfaces.access import MAX_PIN_BYTES, MAX_WRONG_PINS, Access
from hsm_cli.interfaces.pkcs11 import constants as ck

CRYPTOKI_VERSION: Final = (3, 0)

MOST_SESSIONS: Final = 1024
"""Sessions of an application."""

_MANUFACTURER: Final = "FerroHSM"
_MODEL: Final = "FerroHSM"
_RELEASE: Final = tuple(int(part) for part in __version__.split(".")[:2])
_NOT_SAID: Final = ck.CK_UNAVAILABLE_INFORMATION


def library_info() -> tuple[Any, ...]:
    """Return CK_INFO."""
    return (
        CRYPTOKI_VERSION,
        padded(_MANUFACTURER, 32),
        0,
        padded("FerroHSM PKCS#11 interface", 32),
        _RELEASE,
    )


def slot_info(label: str) -> tuple[Any, ...]:
    """Return CK_SLOT_INFO."""
    return (
        padded(f"FerroHSM {label}", 64),
        padded(_MANUFACTURER, 32),
        ck.CKF_TOKEN_PRESENT,
        _RELEASE,
        _RELEASE,
    )


def token_info(access: Access, sessions: int, writable: int) -> tuple[Any, ...]:
    """
    Return CK_TOKEN_INFO.

    Args:
        access: HSM of the interface.

        sessions: Open sessions of the application.

        writable: Those of them that may change token objects.
    """
    return (
        padded(access.label, 32),
        padded(_MANUFACTURER, 32),
        padded(_MODEL, 16),
        serial_number(access.shown),
        _flags(access),
        MOST_SESSIONS,
        sessions,
        MOST_SESSIONS,
        writable,
        MAX_PIN_BYTES,
        1,
        *(_NOT_SAID,) * 4,
        _RELEASE,
        _RELEASE,
        padded("", 16),
    )


def serial_number(shown: str) -> bytes:
    """Return the serial number of a token, 16 characters that follow from its HSM."""
    return hashlib.sha256(shown.encode()).hexdigest()[:16].encode()


def _flags(access: Access) -> int:
    flags = ck.CKF_RNG | ck.CKF_TOKEN_INITIALIZED | ck.CKF_USER_PIN_INITIALIZED
    if not access.takes_pin:
        return flags | ck.CKF_PROTECTED_AUTHENTICATION_PATH
    flags |= ck.CKF_LOGIN_REQUIRED
    if access.tries_left == 0:
        return flags | ck.CKF_USER_PIN_LOCKED
    if access.tries_left == 1:
        return flags | ck.CKF_USER_PIN_FINAL_TRY
    if access.tries_left < MAX_WRONG_PINS:
        return flags | ck.CKF_USER_PIN_COUNT_LOW
    return flags


def padded(text: str, length: int) -> bytes:
    """Return text as UTF-8, padded with spaces, or cut between characters."""
    data = text.encode()[:length].decode(errors="ignore").encode()
    return data.ljust(length)
