# SPDX-License-Identifier: MIT
"""The first page: how the HSM is, at a glance."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from hsm_core.operations import Status
from hsm_server.ui.page import Page
from hsm_server.ui.view import View

__all__ = ["PAGES"]


async def _show(view: View) -> web.Response:
    status = await view.execute(Status())
    return view.render("overview/overview.html", hsm=status)


PAGES: Final = (Page("GET", "", _show, "overview"),)
"""The pages of this module."""
