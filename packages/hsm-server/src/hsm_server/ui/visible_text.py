# SPDX-License-Identifier: MIT
"""
Text of others, made harmless for the eye.

Templates see to it that text never becomes markup. What is left are characters that
nobody sees, or that reorder their neighbours, so that something else seems to be there.
"""

from __future__ import annotations

import unicodedata
from typing import Final

_UNSEEN: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
"""General categories (Unicode, table 4-4): controls, formats, separators of lines."""


def visible(text: str) -> str:
    """Return text in which ``⟨U+202E⟩`` and the like stand for what can't be seen."""
    return "".join(
        f"⟨U+{ord(letter):04X}⟩" if _is_unseen(letter) else letter for letter in text
    )


def _is_unseen(letter: str) -> bool:
    if letter == " ":
        return False
    # Other spaces look like this one, and are none.
    return letter.isspace() or unicodedata.category(letter) in _UNSEEN
