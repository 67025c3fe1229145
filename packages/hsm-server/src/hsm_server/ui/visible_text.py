# SPDX-License-Identifier: MIT
"""
Escaping of invisible and reordering characters.

Templates escape markup. Invisible and bidirectional characters could still make text
look like other text.
"""

from __future__ import annotations

import unicodedata
from typing import Final

_UNSEEN: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
"""Unicode general categories (table 4-4): controls, formats, line separators."""


def visible(text: str) -> str:
    """Return text with invisible characters written as ``⟨U+202E⟩``."""
    return "".join(
        f"⟨U+{ord(letter):04X}⟩" if _is_unseen(letter) else letter for letter in text
    )


def _is_unseen(letter: str) -> bool:
    if letter == " ":
        return False
    # Other spaces look like U+0020 but differ.
    return letter.isspace() or unicodedata.category(letter) in _UNSEEN
