# SPDX-License-Identifier: MIT
"""Keys: the inventory, each key's page, and everything that is done to keys by hand."""

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
