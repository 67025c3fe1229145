# SPDX-License-Identifier: MIT
"""The overview, and its part that goes on by itself."""

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
from hsm_server.ui.faults import Fault, fault_of
from hsm_server.ui.overview.charts import chart
from hsm_server.ui.overview.presenting import cards, concern, providers, waiting_for
from hsm_server.ui.overview.pulse import PERIOD_SECONDS, PULSE
from hsm_server.ui.page import Page
from hsm_server.ui.streams import answer_events, event
from hsm_server.ui.view import View

_MOST_WAITING: Final = 5
_LOOKED_AT: Final = 100


async def _show(view: View) -> web.Response:
    status = await view.execute(Status())
    approvals, fault = await _approvals(view)
    waiting = waiting_for(view.who, approvals)
    return view.render(
        "overview/overview.html",
        hsm=status,
        providers=providers(status.algorithms),
        waiting=waiting[:_MOST_WAITING],
        more=max(0, len(waiting) - _MOST_WAITING),
        approvals_fault=fault,
        **await _live_values(view, status),
    )


async def _approvals(view: View) -> tuple[tuple[ApprovalInfo, ...], Fault | None]:
    """Return requests that wait, or why they can't be shown: the rest still can."""
    operation = ListApprovals(states=(ApprovalState.PENDING,), per_page=_LOOKED_AT)
    try:
        return (await view.execute(operation)).items, None
    except AuthenticationError:
        raise
    except HSMError as error:
        return (), fault_of(error)


async def _live_values(view: View, status: HSMStatus | None) -> dict[str, Any]:
    # Figures of a vault that nobody has asked yet would look like those of a dead one.
    await view.request.app[HEALTH].refresh()
    pulse = view.request.app[PULSE]
    figures = await pulse.look()
    if status is not None:
        figures = msgspec.structs.replace(figures, status=status)
    rates = pulse.rates
    return {
        "concern": concern(figures.status),
        "cards": cards(figures, datetime.now(UTC)),
        "charts": [
            chart("Operations per second", [rate.per_second for rate in rates]),
            chart("Mean latency, ms", [rate.milliseconds for rate in rates]),
        ],
    }


async def _live(view: View) -> web.StreamResponse:
    """Send the live part again and again."""
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
"""The pages of this module."""
