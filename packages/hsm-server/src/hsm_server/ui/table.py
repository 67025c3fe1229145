# SPDX-License-Identifier: MIT
"""All console pages."""

from __future__ import annotations

from typing import Final

from hsm_server.ui import (
    approvals,
    audit,
    keys,
    overview,
    provider,
    retention,
    signing_in,
)
from hsm_server.ui.page import OpenPage, Page

OPEN_PAGES: Final[tuple[OpenPage, ...]] = (
    *signing_in.OPEN_PAGES,
    *provider.OPEN_PAGES,
)
"""Pages without sign-in."""

PAGES: Final[tuple[Page, ...]] = (
    *overview.PAGES,
    *keys.PAGES,
    *approvals.PAGES,
    *audit.PAGES,
    *retention.PAGES,
    *signing_in.PAGES,
)
"""Pages that require sign-in."""
