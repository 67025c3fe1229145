# SPDX-License-Identifier: MIT
"""Key page: metadata, versions, public key and open approval requests."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from hsm_core import wire
from hsm_core.errors import HSMError, InvalidInputError
from hsm_core.model import ApprovalState, KeyInfo, KeyState
from hsm_core.operations import (
    ApprovalInfo,
    GetPublicKey,
    ListApprovals,
    PublicKey,
)
from hsm_core.wire import encode_json
from hsm_server.ui.keys.actions import offered_actions
from hsm_server.ui.keys.presenters import key_facts, version_rows
from hsm_server.ui.keys.subjects import KEY, find_key, find_key_with_versions, path_of
from hsm_server.ui.keys.trials import trials_for
from hsm_server.ui.origin import HOME
from hsm_server.ui.page import Page
from hsm_server.ui.view import View

_MOST_APPROVALS: Final = 20
_READERS: Final = frozenset({"Administrator", "Auditor"})
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
        key=key_facts(key),
        versions=version_rows(key, subject.versions),
        actions=offered_actions(subject, view.who.roles),
        trials=trials_for(key) if key.state is not KeyState.DESTROYED else (),
        public=await _public_key(view, key),
        approvals=await _approvals(view, key),
        may_read_trail=bool(_READERS & set(view.who.roles)),
        path=path_of(key.key_id),
    )


async def _public_key(view: View, key: KeyInfo) -> PublicKey | None:
    """Return the public key, if the key can have one."""
    facts = key_facts(key)
    if not facts.has_public_key or key.state not in _SHOW_PUBLIC:
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
            "form must be pem, der or jwk, and available for this algorithm.",
            field="form",
        )
    bodies = {
        "pem": found.pem.encode(),
        "der": found.der,
        "jwk": encode_json(found.jwk),
    }
    name = f"{key.name or key.key_id}-v{found.version}.{form}"
    return web.Response(
        body=bodies[form],
        content_type=_FORMS[form],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


PAGES: Final = (
    Page("GET", KEY, show_key, "keys.key"),
    Page("GET", f"{KEY}/public-key", send_public_key, "keys.public-key"),
)
