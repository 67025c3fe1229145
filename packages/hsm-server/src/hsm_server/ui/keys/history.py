# SPDX-License-Identifier: MIT
"""History page of a key: its audit records and last use."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from hsm_core.errors import InvalidInputError
from hsm_core.model import KeyInfo
from hsm_core.operations import AuditPage, ListAuditEvents
from hsm_server.ui.keys.events import event_rows, last_use
from hsm_server.ui.keys.presenters import key_facts
from hsm_server.ui.keys.subjects import KEY, find_key, path_of
from hsm_server.ui.page import Page
from hsm_server.ui.view import View

_PER_PAGE: Final = 20


async def show_history(view: View) -> web.StreamResponse:
    """Show a key's audit records and last use."""
    key = await find_key(view)
    page = await _events(view, key, _start(view.query.get("start", "")))
    rows = event_rows(page.items)
    template = "keys/_history.html" if view.is_part else "keys/history.html"
    answer = view.fragment if view.is_part else view.render
    return answer(
        template,
        key=key_facts(key),
        rows=rows,
        used=last_use(rows),
        is_newest=not view.query.get("start"),
        older=page.next_seq,
        path=path_of(key.key_id),
    )


def _start(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise InvalidInputError(
            "start must be the number of an audit record.", field="start"
        )
    return int(text)


async def _events(view: View, key: KeyInfo, start: int | None) -> AuditPage:
    """
    Return the newest audit records of a key, from *start* back.

    One call searches a limited number of records: a page may be empty while there are
    older matches.
    """
    return await view.execute(
        ListAuditEvents(key_id=key.key_id, start_seq=start, limit=_PER_PAGE)
    )


PAGES: Final = (Page("GET", f"{KEY}/history", show_history, "keys.history"),)
