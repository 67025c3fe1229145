# SPDX-License-Identifier: MIT
"""
Templates, static files, and escaping of invisible characters.

Templates escape markup. Invisible and bidirectional characters could still make text
look like other text.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp import ETag, web

from hsm_core.model import AuditEvent, KeyInfo, KeyState, Phase, PolicyOutcome
from hsm_server.http.state import begin_operation

if TYPE_CHECKING:
    import jinja2

STATIC_PATH: Final = "/ui/static/{name}"
"""Route of static files."""

_FOLDER: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_FOREVER: Final = "public, max-age=31536000, immutable"
_DIGEST_CHARACTERS: Final = 16


@dataclass(frozen=True, slots=True)
class _Asset:
    name: str
    body: bytes
    content_type: str


def _read(path: Path) -> _Asset:
    body = path.read_bytes()
    digest = hashlib.sha256(body).hexdigest()[:_DIGEST_CHARACTERS]
    return _Asset(f"{path.stem}.{digest}{path.suffix}", body, _TYPES[path.suffix])


_ASSETS: Final = {
    path.name: _read(path)
    for path in sorted(_FOLDER.iterdir())
    if path.suffix in _TYPES
}
_BY_NAME: Final = {asset.name: asset for asset in _ASSETS.values()}


def asset_url(name: str) -> str:
    """Return the URL of a static file."""
    return f"/ui/static/{_ASSETS[name].name}"


async def serve_asset(request: web.Request) -> web.Response:
    """
    Send a static file.

    Raises:
        HTTPNotFound: No file has this name and hash.
    """
    begin_operation(request, "ui.static")
    asset = _BY_NAME.get(request.match_info["name"])
    if asset is None:
        raise web.HTTPNotFound
    response = web.Response(
        body=asset.body, content_type=asset.content_type, charset="utf-8"
    )
    response.headers["Cache-Control"] = _FOREVER
    response.etag = ETag(asset.name)
    return response


PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    # Other sites get no referrer; our own forms send their origin.
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
"""Headers of every console page."""

_TEMPLATES: Final = Path(__file__).parent / "templates"


def visible(text: str) -> str:
    """Return text with invisible characters written as ``⟨U+202E⟩``."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else f"⟨U+{ord(letter):04X}⟩" for letter in text
    )


class _Raw(str):
    """Text that is shown with its invisible characters, such as a field's value."""

    __slots__ = ()


def _finalize(value: object) -> object:
    """Show invisible characters of all text that a template prints."""
    return visible(value) if type(value) is str else value


def _instant(when: datetime | int) -> datetime:
    """Return an instant; numbers are microseconds since 1970."""
    if isinstance(when, datetime):
        return when.astimezone(UTC)
    return datetime.fromtimestamp(when // 1_000_000, UTC)


def _utc(when: datetime | int) -> str:
    """Return an instant as readable text, to the second."""
    return f"{_instant(when):%Y-%m-%d %H:%M:%S} UTC"


def _iso(when: datetime | int) -> str:
    """Return an instant in RFC 3339."""
    return f"{_instant(when):%Y-%m-%dT%H:%M:%SZ}"


_STATES: Final = {
    KeyState.STAGED: ("staged", "info"),
    KeyState.ACTIVE: ("active", "ok"),
    KeyState.RETIRED: ("retired", "info"),
    KeyState.SUSPENDED: ("suspended", "warn"),
    KeyState.REVOKED: ("revoked", "bad"),
    KeyState.PURGE_SCHEDULED: ("pending destruction", "warn"),
    KeyState.DESTROYED: ("destroyed", "bad"),
}


_DECISIONS: Final = {
    PolicyOutcome.ALLOW: ("allowed", "ok"),
    PolicyOutcome.APPROVAL: ("needs approval", "warn"),
    PolicyOutcome.DENY: ("denied", "bad"),
}


def state_badge(state: KeyState | None) -> tuple[str, str]:
    """Return text and tone of a key's state; None is the state of an altered key."""
    return ("unknown", "bad") if state is None else _STATES[state]


def key_title(key: KeyInfo) -> str:
    """Return a key's name, or the first characters of its ID."""
    return key.name or f"{key.key_id[:8]}…"


def outcome_badge(event: AuditEvent) -> tuple[str, str]:
    """Return text and tone of the outcome of an audit record."""
    if event.phase is Phase.INTENT:
        return "intent", "info"
    return event.code, {"ok": "ok", "approval_required": "warn"}.get(event.code, "bad")


def _lines(text: str) -> _Raw:
    """Return text whose line breaks stay, with other invisible characters shown."""
    return _Raw("\n".join(map(visible, text.splitlines())))


@cache
def _environment() -> jinja2.Environment:
    # A server whose console nobody opens needs no templates.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals["asset_url"] = asset_url
    environment.filters |= {
        "decision": _DECISIONS.__getitem__,
        "iso": _iso,
        "key_title": key_title,
        "lines": _lines,
        "outcome": outcome_badge,
        "raw": _Raw,
        "state": state_badge,
        "utc": _utc,
    }
    return environment


def render(template: str, values: dict[str, Any]) -> str:
    """
    Return a page or a fragment.

    Args:
        template: Path below ``templates``.

        values: Values of the template.
    """
    return _environment().get_template(template).render(values)
