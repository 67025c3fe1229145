# SPDX-License-Identifier: MIT
"""Escaping of invisible characters."""

import pytest

from hsm_server.ui.rendering import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, 7 €", "plain, 7 €"),
        ("Жанна 佐藤", "Жанна 佐藤"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("a\u200bb", "a⟨U+200B⟩b"),
        ("a\nb\tc", "a⟨U+000A⟩b⟨U+0009⟩c"),
        ("a\u00a0b\u2003c", "a⟨U+00A0⟩b⟨U+2003⟩c"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("<b>", "<b>"),
    ],
    ids=[
        "plain",
        "letters",
        "reordering",
        "no-width",
        "breaks",
        "spaces",
        "tags",
        "markup-is-for-templates",
    ],
)
def test_what_cannot_be_seen_is_told(text: str, shown: str) -> None:
    """Letters stay; invisible and reordering characters become code points."""
    assert shown == visible(text)
