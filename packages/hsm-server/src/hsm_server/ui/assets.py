# SPDX-License-Identifier: MIT
"""Static files with content hashes in their names, cached permanently."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import ETag, web

from hsm_server.http.app_keys import begin_operation

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
