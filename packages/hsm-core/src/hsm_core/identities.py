# SPDX-License-Identifier: MIT
"""Who is who: when two names are one person, and which names nobody may have."""

from __future__ import annotations

import unicodedata
from typing import Final

__all__ = ["SYSTEM_PREFIX", "identity", "is_reserved", "same_person"]

SYSTEM_PREFIX: Final = "system."
"""What the names of the HSM's own doings begin with."""

_RESERVED: Final = frozenset({"system", "retention-scheduler", "unauthenticated"})


def identity(principal: str) -> str:
    """
    Return a form of a name that is the same for all names of one person.

    Case, compatibility forms (NFKC), characters that show nothing and spaces at the
    ends make no other person. Letters that only look alike do: who gives out names must
    keep them apart.
    """
    shown = "".join(c for c in principal if unicodedata.category(c) != "Cf")
    folded = unicodedata.normalize("NFKC", shown).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def same_person(one: str, other: str) -> bool:
    """Return whether two principals may be one person, by their `identity`."""
    return identity(one) == identity(other)


def is_reserved(principal: str) -> bool:
    """Return whether only the HSM itself acts under this name."""
    plain = identity(principal)
    return plain in _RESERVED or plain.startswith(SYSTEM_PREFIX)
