# SPDX-License-Identifier: MIT
"""Overview page and its live part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from aiohttp import web

from hsm_core.errors import AuthenticationError, HSMError
from hsm_core.model import ApprovalState
from hsm_core.operations import ApprovalInfo, HSMStatus, ListApprovals, Status
from hsm_server.http.app_keys import HEALTH
from hsm_server.ui.faults import ErrorPage, error_page_of
from hsm_server.ui.overview.charts import chart
from hsm_server.ui.overview.presenting import cards, concern, pending_for, providers
from hsm_server.ui.overview.sampler import PERIOD_SECONDS, SAMPLER
from hsm_server.ui.page import Page
from hsm_server.ui.streams import answer_events, event
from hsm_server.ui.view import View

_MOST_WAITING: Final = 5
_LOOKED_AT: Final = 100


async def _show(view: View) -> web.Response:
    status = await view.execute(Status())
    approvals, fault = await _approvals(view)
    waiting = pending_for(view.who, approvals)
    return view.render(
        "overview/overview.html",
        hsm=status,
        providers=providers(status.algorithms),
        waiting=waiting[:_MOST_WAITING],
        more=max(0, len(waiting) - _MOST_WAITING),
        approvals_fault=fault,
        **await _live_values(view, status),
    )


async def _approvals(view: View) -> tuple[tuple[ApprovalInfo, ...], ErrorPage | None]:
    """Return pending approval requests, or the error of listing them."""
    operation = ListApprovals(states=(ApprovalState.PENDING,), per_page=_LOOKED_AT)
    try:
        return (await view.execute(operation)).items, None
    except AuthenticationError:
        raise
    except HSMError as error:
        return (), error_page_of(error)


async def _live_values(view: View, status: HSMStatus | None) -> dict[str, Any]:
    # Without a first refresh, the vault would look dead.
    await view.request.app[HEALTH].refresh()
    sampler = view.request.app[SAMPLER]
    figures = await sampler.look()
    if status is not None:
        figures = msgspec.structs.replace(figures, status=status)
    rates = sampler.rates
    return {
        "concern": concern(figures.status),
        "cards": cards(figures, datetime.now(UTC)),
        "charts": [
            chart("Operations per second", [rate.per_second for rate in rates]),
            chart("Mean latency, ms", [rate.milliseconds for rate in rates]),
        ],
    }


async def _live(view: View) -> web.StreamResponse:
    """Stream the live part."""
    return await answer_events(view, _parts(view))


async def _parts(view: View) -> AsyncGenerator[bytes, None]:
    while True:
        values = await _live_values(view, None)
        yield event("part", view.markup("overview/_live.html", **values))
        await asyncio.sleep(PERIOD_SECONDS)


PAGES: Final = (
    Page("GET", "", _show, "overview"),
    Page("GET", "/overview/live", _live, "overview.live", is_background=True),
)
"""Pages of this module."""
