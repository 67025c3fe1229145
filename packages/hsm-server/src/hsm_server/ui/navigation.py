# SPDX-License-Identifier: MIT
"""Where the console's menu leads, by role: a courtesy, for the core decides."""

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
class Entry:
    """One link of the menu."""

    label: str
    path: str
    is_here: bool


def navigation(who: Who | None, path: str) -> Sequence[Entry]:
    """Return the menu for somebody who looks at a page; nobody sees none."""
    if who is None:
        return ()
    return [
        Entry(label, target, _is_here(target, path))
        for label, target, roles in _ENTRIES
        if roles & set(who.roles)
    ]


def _is_here(target: str, path: str) -> bool:
    return path == target or (target != HOME and path.startswith(target + "/"))
