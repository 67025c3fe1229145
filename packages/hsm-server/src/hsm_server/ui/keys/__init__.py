# SPDX-License-Identifier: MIT
"""Key pages: list, key, creation, actions, policy, history and test operations."""

from __future__ import annotations

from typing import Final

from hsm_server.ui.keys import actions, creation, pages, usage
from hsm_server.ui.view import Page

PAGES: Final[tuple[Page, ...]] = (
    *creation.PAGES,
    *pages.PAGES,
    *actions.PAGES,
    *usage.PAGES,
)
