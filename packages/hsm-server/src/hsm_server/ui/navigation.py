# SPDX-License-Identifier: MIT
"""Main menu, by role. The core authorizes each page's operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hsm_server.ui.origin import HOME
from hsm_server.vault.access import Who

_EVERYBODY: Final = frozenset({"Administrator", "Operator", "Auditor", "Service"})
_ENTRIES: Final = (
    ("Overview", HOME, _EVERYBODY),
    ("Keys", f"{HOME}/keys", _EVERYBODY),
    ("Approvals", f"{HOME}/approvals", _EVERYBODY),
    ("Audit", f"{HOME}/audit", frozenset({"Administrator", "Auditor"})),
    ("Retention", f"{HOME}/retention", frozenset({"Administrator", "Auditor"})),
)


@dataclass(frozen=True, slots=True)
class MenuEntry:
    """A menu entry."""

    label: str
    path: str
    is_here: bool


def navigation(who: Who | None, path: str) -> Sequence[MenuEntry]:
    """Return the menu for a signed-in user; empty for others."""
    if who is None:
        return ()
    return [
        MenuEntry(label, target, _is_here(target, path))
        for label, target, roles in _ENTRIES
        if roles & set(who.roles)
    ]


def _is_here(target: str, path: str) -> bool:
    return path == target or (target != HOME and path.startswith(target + "/"))
