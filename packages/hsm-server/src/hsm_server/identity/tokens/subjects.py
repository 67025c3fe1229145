# SPDX-License-Identifier: MIT
"""Subject names of tokens."""

from __future__ import annotations

import unicodedata

from hsm_core.errors import AuthenticationError
from hsm_core.identities import is_reserved, shows_nothing


def checked_name(name: str) -> str:
    """
    Return a name that looks like no other and hides nothing.

    Raises:
        AuthenticationError: It is none.
    """
    if not 1 <= len(name) <= 128 or not name.isprintable() or name != name.strip():
        raise AuthenticationError
    # Two names that look the same must be the same, and nothing may be invisible.
    if not unicodedata.is_normalized("NFC", name) or shows_nothing(name):
        raise AuthenticationError
    return name


def checked_subject(name: str) -> str:
    """
    Return the name of a principal that a token may speak for.

    Raises:
        AuthenticationError: See `checked_name`; or the HSM itself has that name.
    """
    if is_reserved(checked_name(name)):
        raise AuthenticationError
    return name
