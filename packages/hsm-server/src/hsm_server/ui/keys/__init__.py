# SPDX-License-Identifier: MIT
"""Key pages: list, key, create, actions, policy, history and test."""

from __future__ import annotations

from typing import Final

from hsm_server.ui.keys import (
    changing,
    creating,
    history,
    listing,
    page,
    policies,
    trying,
)
from hsm_server.ui.page import Page

__all__ = ["PAGES"]

PAGES: Final[tuple[Page, ...]] = (
    *listing.PAGES,
    *creating.PAGES,
    *page.PAGES,
    *history.PAGES,
    *policies.PAGES,
    *changing.PAGES,
    *trying.PAGES,
)
