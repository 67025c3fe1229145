# SPDX-License-Identifier: MIT
"""Page of the nodes of a cluster."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from hsm_core.operations import ListNodes
from hsm_server.ui.view import Page, View

_STATES: Final = {
    "live": ("live", "ok"),
    "dead": ("dead, being settled", "bad"),
    "stopped": ("stopped", ""),
}
"""Description and badge of each state of a node."""


async def _show(view: View) -> web.Response:
    found = await view.execute(ListNodes())
    rows = [(node, *_STATES.get(node.state, (node.state, ""))) for node in found.items]
    policies = {node.policy for node in found.items if node.state == "live"}
    return view.render(
        "nodes/nodes.html",
        answering=found.node,
        revision=found.revision,
        rows=rows,
        is_one_policy=len(policies) <= 1,
    )


PAGES: Final = (Page("GET", "/nodes", _show, "nodes.list"),)
"""Pages of this module."""
