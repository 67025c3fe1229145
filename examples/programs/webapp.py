# SPDX-License-Identifier: MIT
"""
Web application that encrypts notes before it stores them.

    flask --app webapp run

Each note is bound to its owner: moved to another owner, it can't be decrypted. The key
rotates while old notes stay readable.
"""

from __future__ import annotations

import os
import uuid

from flask import Flask, Response, abort, request

import hsm_core
from hsm_core import DecryptionError, User


def open_user() -> User:
    """Return the HSM of a server if there is one, else the one in this folder."""
    if "FERROHSM_ENDPOINT" in os.environ:
        import hsm_client

        return hsm_client.connect()
    hsm = hsm_core.open("keys", root="root.key", create=True)
    return hsm.as_user("notes-app", roles=["service", "operator"])


def create_app(user: User | None = None) -> Flask:
    """Return the application."""
    app = Flask(__name__)
    notes: dict[str, bytes] = {}
    key = (user or open_user()).create("AES-256-GCM", name="notes", exist_ok=True)

    @app.post("/<owner>/notes")
    def write(owner: str) -> tuple[dict[str, str], int]:
        note = str(uuid.uuid4())
        notes[note] = key.encrypt(request.get_data(), owner.encode())
        return {"note": note}, 201

    @app.get("/<owner>/notes/<note>")
    def read(owner: str, note: str) -> Response:
        try:
            text = key.decrypt(notes[note], owner.encode())
        except (KeyError, DecryptionError):
            abort(404)
        return Response(text, mimetype="text/plain")

    @app.post("/rotation")
    def rotate() -> dict[str, int]:
        return {"version": key.rotate().version}

    return app
