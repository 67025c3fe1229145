# SPDX-License-Identifier: MIT
"""Pages that show keys: list, one key, public key, history and policy."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web

from hsm_core import wire
from hsm_core.algorithms import ALGORITHMS, spec
from hsm_core.errors import HSMError, InvalidInputError
from hsm_core.model import ApprovalState, KeyInfo, KeyState, Role
from hsm_core.operations import (
    OPERATIONS,
    ApprovalInfo,
    GetPublicKey,
    KeyPage,
    ListApprovals,
    ListAuditEvents,
    ListKeys,
    PublicKey,
    RotateKey,
)
from hsm_server.ui.forms import whole_number
from hsm_server.ui.keys.actions import offered_actions
from hsm_server.ui.keys.presenters import (
    KEY,
    READERS,
    event_detail,
    explain,
    find_key,
    find_key_with_versions,
    history_entries,
    key_values,
    last_use,
    path_of,
    version_dates,
)
from hsm_server.ui.keys.usage import usages_for
from hsm_server.ui.rendering import state_badge
from hsm_server.ui.security import HOME
from hsm_server.ui.view import Page, View

_KEYS_PER_PAGE: Final = 25
_FILTERS: Final = ("search", "algorithm", "state", "tag")
_PATH: Final = f"{HOME}/keys"
_CREATORS: Final = frozenset({"Administrator", "Operator"})


def _query(given: Mapping[str, str]) -> ListKeys:
    tree: dict[str, Any] = {
        name: given[name].strip()
        for name in ("search", "algorithm", "state")
        if given.get(name, "").strip()
    }
    tree["tags"] = given.get("tag", "").replace(",", " ").split()
    problem = "page must be a positive number."
    tree["page"] = whole_number(given.get("page", "1"), "page", problem)
    return wire.convert({**tree, "per_page": _KEYS_PER_PAGE}, ListKeys)


async def show_list(view: View) -> web.StreamResponse:
    """Show the key list, or only its table for scripts."""
    given = view.query
    wrong, found = "", KeyPage(items=(), total=0, page=1, per_page=_KEYS_PER_PAGE)
    try:
        found = await view.execute(_query(given))
    except InvalidInputError as error:
        wrong = str(error)
    kept = {name: given[name] for name in _FILTERS if given.get(name)}
    pages = max(1, -(-found.total // found.per_page))

    def path(page: int) -> str:
        return f"{_PATH}?{urlencode({**kept, 'page': page})}"

    values: dict[str, Any] = {
        "found": found,
        "pages": pages,
        "previous": path(min(found.page - 1, pages)) if found.page > 1 else "",
        "next": path(found.page + 1) if found.page < pages else "",
        "given": {name: given.get(name, "") for name in _FILTERS},
        "wrong": wrong,
        "is_narrowed": bool(kept),
        "may_create": bool(_CREATORS & set(view.who.roles)),
    }
    if view.is_part:
        return view.render("keys/_inventory.html", **values)
    return view.render(
        "keys/list.html",
        status=422 if wrong else 200,
        algorithms=[(name.value, name.value) for name in ALGORITHMS],
        states=[(state.value, state_badge(state)[0]) for state in KeyState],
        **values,
    )


_MOST_APPROVALS: Final = 20
_SHOW_PUBLIC: Final = frozenset(KeyState) - {
    KeyState.PURGE_SCHEDULED,
    KeyState.DESTROYED,
}
_OPEN: Final = (ApprovalState.PENDING, ApprovalState.GRANTED)
_FORMS: Final = {
    "pem": "application/x-pem-file",
    "der": "application/octet-stream",
    "jwk": "application/jwk+json",
}


async def show_key(view: View) -> web.StreamResponse:
    """Show a key."""
    subject = await find_key_with_versions(view)
    key = subject.key
    return view.render(
        "keys/key.html",
        **key_values(key),
        versions=[(v, version_dates(v)) for v in reversed(subject.versions)],
        actions=offered_actions(subject, view.who),
        usages=usages_for(key) if key.state is not KeyState.DESTROYED else (),
        public=await _public_key(view, key),
        approvals=await _approvals(view, key),
        may_read_trail=bool(READERS & set(view.who.roles)),
    )


async def _public_key(view: View, key: KeyInfo) -> PublicKey | None:
    """Return the public key, if the key can have one."""
    is_asymmetric = key.algorithm is not None and spec(key.algorithm).is_asymmetric
    if not is_asymmetric or key.state not in _SHOW_PUBLIC:
        return None
    with contextlib.suppress(HSMError):
        return await view.execute(GetPublicKey(key_id=key.key_id))
    return None


async def _approvals(view: View, key: KeyInfo) -> Sequence[tuple[ApprovalInfo, str]]:
    """Return the caller's open approval requests for this key, with their paths."""
    asked = ListApprovals(
        key_id=key.key_id,
        requester=view.who.principal,
        states=_OPEN,
        per_page=_MOST_APPROVALS,
    )
    with contextlib.suppress(HSMError):
        found = (await view.execute(asked)).items
        return [(one, f"{HOME}/approvals/{one.approval_id}") for one in found]
    return ()


async def send_public_key(view: View) -> web.StreamResponse:
    """Send a public key as a file."""
    key, query = await find_key(view), view.query
    form = query.get("form", "pem")
    asked: dict[str, Any] = {"key_id": key.key_id}
    if query.get("version"):
        asked["version"] = query["version"]
    found = await view.execute(wire.convert(asked, GetPublicKey, strict=False))
    if form not in _FORMS or (form == "jwk" and found.jwk is None):
        raise InvalidInputError(
            "form must be pem, der or, if the algorithm supports it, jwk.",
            field="form",
        )
    bodies = {
        "pem": found.pem.encode(),
        "der": found.der,
        "jwk": wire.encode_json(found.jwk),
    }
    name = f"{key.name or key.key_id}-v{found.version}.{form}"
    return web.Response(
        body=bodies[form],
        content_type=_FORMS[form],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


_RECORDS_PER_PAGE: Final = 20


async def show_history(view: View) -> web.StreamResponse:
    """
    Show a key's audit records and last use.

    One call searches a limited number of records: a page may be empty while there are
    older matches.
    """
    text, cursor = (view.query.get(name, "") for name in ("start", "cursor"))
    problem = "start must be the number of an audit record."
    start = whole_number(text, "start", problem) if text else None
    key = await find_key(view)
    operation = {
        "key_id": key.key_id,
        "start_seq": start,
        "cursor": cursor,
        "limit": _RECORDS_PER_PAGE,
    }
    page = await view.execute(wire.convert(operation, ListAuditEvents))
    older = {"start": page.next_seq, "cursor": page.next_cursor or None}
    entries = history_entries(page.items)
    template = "keys/_history.html" if view.is_part else "keys/history.html"
    return view.render(
        template,
        key=key,
        entries=[(entry, event_detail(entry.event)) for entry in entries],
        used=last_use(entry.event for entry in entries),
        is_newest=not (text or cursor),
        older=urlencode({name: at for name, at in older.items() if at is not None}),
        path=path_of(key.key_id),
    )


_ABOUT_KEYS: Final = tuple(
    operation.__name__
    for operation in OPERATIONS
    if "key_id" in operation.__struct_fields__
    and not operation.other_keys
    and operation.__name__
    not in {"ListApprovals", "ListAuditEvents", "ExplainPolicy", "RecoverKey"}
)


async def show_policy(view: View) -> web.StreamResponse:
    """Explain the policy decision for an operation on a key."""
    key, query = await find_key(view), view.query
    usages = usages_for(key)
    usual = usages[0].operation_for(key) if usages else RotateKey
    given = {
        "operation": query.get("operation", "") or usual.__name__,
        "principal": query.get("principal", "") or view.who.principal,
        "role": query.get("role", ""),
    }
    wrong, found = "", None
    try:
        found = await explain(view, **given, key_id=key.key_id)
    except InvalidInputError as error:
        wrong = str(error)
    return view.render(
        "keys/policy.html",
        status=422 if wrong else 200,
        key=key,
        explained=found,
        wrong=wrong,
        given=given,
        operations=[(name, name) for name in _ABOUT_KEYS],
        roles=[("", "my roles"), *((role.value, role.value) for role in Role)],
        path=path_of(key.key_id),
    )


PAGES: Final = (
    Page("GET", "/keys", show_list, "keys.list"),
    Page("GET", KEY, show_key, "keys.key"),
    Page("GET", f"{KEY}/public-key", send_public_key, "keys.public-key"),
    Page("GET", f"{KEY}/history", show_history, "keys.history"),
    Page("GET", f"{KEY}/policy", show_policy, "keys.policy"),
)
