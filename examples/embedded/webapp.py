# SPDX-License-Identifier: MIT
"""
An HSM inside a web application: notes that are encrypted before they are stored.

    python3 webapp.py FOLDER PORT

The HSM runs in the process of the application and never blocks its event loop. Each
note is bound to its owner: who moves one to another owner makes it unreadable.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from aiohttp import web

from hsm_core.errors import HSMError, KeyNotFoundError
from hsm_core.factory import open_async, open_hsm
from hsm_core.model import Caller, Role
from hsm_core.operations import CreateKey, Decrypt, DescribeKey, Encrypt
from hsm_core.protocols import AsyncHSM
from hsm_core.settings import KeyStoreKind, Settings

__all__ = ["make_app"]

_HSM: Final = web.AppKey("_HSM", AsyncHSM)
_NOTES: Final = web.AppKey("_NOTES", dict[str, bytes])
_KEY: Final = "notes"


def make_app(folder: Path, master_key: bytes, hmac_key: bytes) -> web.Application:
    """Return the application; keys and trail lie in *folder*."""

    async def hold(app: web.Application) -> AsyncIterator[None]:
        settings = Settings(
            key_store=KeyStoreKind.SQLITE,
            sqlite_path=folder / "keys.sqlite",
            audit_log=folder / "audit.log",
        )
        caller = Caller(principal="notes-app", roles=frozenset({Role.OPERATOR}))
        with open_hsm(settings, master_key=master_key, hmac_key=hmac_key) as gateway:
            app[_HSM] = open_async(gateway).act_as(caller)
            await _make_key(app[_HSM])
            yield

    app = web.Application()
    app[_NOTES] = {}
    app.cleanup_ctx.append(hold)
    app.router.add_post("/{owner}/notes", _write)
    app.router.add_get("/{owner}/notes/{note}", _read)
    return app


async def _make_key(hsm: AsyncHSM) -> None:
    try:
        await hsm.execute(DescribeKey(key_id=_KEY))
    except KeyNotFoundError:
        await hsm.execute(CreateKey(algorithm="AES-256-GCM", name=_KEY))


async def _write(request: web.Request) -> web.Response:
    sealed = await request.app[_HSM].execute(
        Encrypt(
            key_id=_KEY,
            plaintext=await request.read(),
            aad=request.match_info["owner"].encode(),
        )
    )
    note = str(uuid.uuid4())
    request.app[_NOTES][note] = sealed.ciphertext
    return web.json_response({"note": note}, status=201)


async def _read(request: web.Request) -> web.Response:
    ciphertext = request.app[_NOTES].get(request.match_info["note"])
    if ciphertext is None:
        raise web.HTTPNotFound
    try:
        opened = await request.app[_HSM].execute(
            Decrypt(
                key_id=_KEY,
                ciphertext=ciphertext,
                aad=request.match_info["owner"].encode(),
            )
        )
    except HSMError:
        # Whoever asks for the note of somebody else learns nothing.
        raise web.HTTPNotFound from None
    return web.Response(body=opened.plaintext, content_type="text/plain")


if __name__ == "__main__":
    place = Path(sys.argv[1])
    secrets = place / "secrets"  # Not in the data, which a backup packs.
    root, trail = ((secrets / name).read_bytes() for name in ("master-key", "hmac-key"))
    app = make_app(place / "data", root, trail)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[2]))
