# SPDX-License-Identifier: MIT
"""Key list: filters and pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web

from hsm_core import wire
from hsm_core.algorithms import ALGORITHMS
from hsm_core.errors import InvalidInputError
from hsm_core.model import KeyState
from hsm_core.operations import KeyPage, ListKeys
from hsm_server.ui.keys.presenters import KeyRow, key_row, state_badge
from hsm_server.ui.origin import HOME
from hsm_server.ui.page import Page
from hsm_server.ui.view import View

_PER_PAGE: Final = 25
_FILTERS: Final = ("search", "algorithm", "state", "tag")
_PATH: Final = f"{HOME}/keys"
_CREATORS: Final = frozenset({"Administrator", "Operator"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """
    One page of the key list.

    Attributes:
        previous: Path of the previous page, or empty.
        next: Path of the next page, or empty.
    """

    rows: Sequence[KeyRow]
    total: int
    page: int
    pages: int
    previous: str
    next: str


def build_query(given: Mapping[str, str]) -> ListKeys:
    """
    Return the operation of a query.

    Raises:
        InvalidInputError: A filter is invalid.
    """
    tree: dict[str, Any] = {"per_page": _PER_PAGE, "page": _page_number(given)}
    for name in ("search", "algorithm", "state"):
        if given.get(name, "").strip():
            tree[name] = given[name].strip()
    tags = given.get("tag", "").replace(",", " ").split()
    return wire.convert({**tree, "tags": tags}, ListKeys)


def _page_number(given: Mapping[str, str]) -> int:
    text = given.get("page", "1")
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise InvalidInputError("page must be a positive number.", field="page")
    return int(text)


def build_listing(found: KeyPage, given: Mapping[str, str]) -> Listing:
    """Return a page of keys, with the paths to the previous and next one."""
    pages = max(1, -(-found.total // found.per_page))
    return Listing(
        rows=[key_row(key) for key in found.items],
        total=found.total,
        page=found.page,
        pages=pages,
        previous=_path(given, min(found.page - 1, pages)) if found.page > 1 else "",
        next=_path(given, found.page + 1) if found.page < pages else "",
    )


def _path(given: Mapping[str, str], page: int) -> str:
    kept = {name: given[name] for name in _FILTERS if given.get(name)}
    return f"{_PATH}?{urlencode({**kept, 'page': page})}"


async def show_list(view: View) -> web.StreamResponse:
    """Show the key list, or only its table for scripts."""
    given = view.query
    wrong, found = "", KeyPage(items=(), total=0, page=1, per_page=_PER_PAGE)
    try:
        found = await view.execute(build_query(given))
    except InvalidInputError as error:
        wrong = str(error)
    values: dict[str, Any] = {
        "listing": build_listing(found, given),
        "given": {name: given.get(name, "") for name in _FILTERS},
        "wrong": wrong,
        "is_narrowed": any(given.get(name) for name in _FILTERS),
        "may_create": bool(_CREATORS & set(view.who.roles)),
    }
    if view.is_part:
        return view.fragment("keys/_inventory.html", **values)
    return view.render(
        "keys/list.html",
        status=422 if wrong else 200,
        algorithms=[(name.value, name.value) for name in ALGORITHMS],
        states=[(state.value, state_badge(state).text) for state in KeyState],
        **values,
    )


PAGES: Final = (Page("GET", "/keys", show_list, "keys.list"),)
