# SPDX-License-Identifier: MIT
"""Template rendering with autoescape."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import jinja2

from hsm_server.ui.assets import asset_url

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


def _instant(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC)


def _utc(microseconds: int) -> str:
    """Return an instant as readable text, to the second."""
    return f"{_instant(microseconds):%Y-%m-%d %H:%M:%S} UTC"


def _iso(microseconds: int) -> str:
    """Return an instant in RFC 3339."""
    return f"{_instant(microseconds):%Y-%m-%dT%H:%M:%SZ}"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals["asset_url"] = asset_url
    environment.filters["utc"] = _utc
    environment.filters["iso"] = _iso
    return environment


_ENVIRONMENT: Final = _environment()


def render(template: str, values: dict[str, Any]) -> str:
    """
    Return a page or a fragment.

    Args:
        template: Path below ``templates``.

        values: Values of the template.
    """
    return _ENVIRONMENT.get_template(template).render(values)
