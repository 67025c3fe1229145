# SPDX-License-Identifier: MIT
"""Key pages: list, key, create, actions, policy, history and test."""

from __future__ import annotations

from typing import Final

from hsm_server.ui.keys import actions, pages, policy, usage
from hsm_server.ui.view import Page

__all__ = ["PAGES"]

PAGES: Final[tuple[Page, ...]] = (
    *pages.LIST_PAGES,
    *actions.CREATION_PAGES,
    *pages.KEY_PAGES,
    *pages.HISTORY_PAGES,
    *policy.PAGES,
    *actions.ACTION_PAGES,
    *usage.PAGES,
)
