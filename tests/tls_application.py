# SPDX-License-Identifier: MIT
"""HTTPS server of a Flask application on loopback, with a CA of its own."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import flask
from werkzeug.serving import make_server

from tests.pki import SERVER, self_signed_root


class TLSApplication:
    """
    Server in a thread, for the length of a ``with`` block.

    Args:
        folder: For certificates; it is made if it is missing.

        application: The application.

    Attributes:
        bundle: PEM file of its CA.
        port: Its port on ``127.0.0.1`` and ``localhost``.
    """

    def __init__(self, folder: Path, application: flask.Flask) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        root = self_signed_root("application authority")
        chain, key = root.issue("application", use=SERVER).write(folder, "provider")
        self.bundle, _ = root.write(folder, "authority")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        self._server = make_server(
            "127.0.0.1", 0, application, threaded=True, ssl_context=context
        )
        self.port = self._server.port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
