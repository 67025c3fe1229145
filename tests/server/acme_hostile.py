# SPDX-License-Identifier: MIT
"""A CA that answers whatever a test wants, over HTTPS."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from tests.pki import SERVER, self_signed_root

Answering = Callable[["Reply"], None]


class Reply(BaseHTTPRequestHandler):
    """
    One request, and its answer.

    Attributes:
        body: Of the request.
    """

    protocol_version = "HTTP/1.1"
    server: HostileCA
    body = b""

    def do_GET(self) -> None:
        """Answer."""
        self._answer()

    def do_HEAD(self) -> None:
        """Answer."""
        self._answer()

    def do_POST(self) -> None:
        """Answer, after all was read."""
        self.body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._answer()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def send(
        self,
        status: int,
        body: object,
        *,
        content: str = "application/json",
        **more: str,
    ) -> None:
        """Send JSON, or bytes as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Replay-Nonce", "bm9uY2U")
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str, detail: str = "No.", **more: str) -> None:
        """Send a problem (RFC 8555, section 6.7)."""
        problem = {"type": f"urn:ietf:params:acme:error:{code}", "detail": detail}
        self.send(status, problem, content="application/problem+json", **more)

    def _answer(self) -> None:
        self.server.seen.append(f"{self.command} {self.path}")
        with contextlib.suppress(OSError):
            self.server.answers.get(self.path, self.server.usual)(self)


class HostileCA(ThreadingHTTPServer):
    """
    What it is asked, and what it answers.

    Attributes:
        answers: By path.
        seen: Requests so far.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Reply)
        self.answers: dict[str, Answering] = {}
        self.seen: list[str] = []
        root = self_signed_root("The CA's own")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*root.issue("ca", use=SERVER).write(folder, "ca"))
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.bundle = folder / "bundle.pem"
        self.bundle.write_bytes(root.certificate.public_bytes(Encoding.PEM))

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://localhost:{self.server_port}"

    @property
    def directory(self) -> str:
        """Where it begins."""
        return f"{self.url}/dir"

    def usual(self, reply: Reply) -> None:
        """Answer as a CA does that has nothing against us; there is no order."""
        match reply.path:
            case "/dir":
                paths = ("newNonce", "newAccount", "newOrder", "revokeCert")
                reply.send(200, {path: f"{self.url}/{path}" for path in paths})
            case "/newAccount":
                reply.send(201, {"status": "valid"}, Location=f"{self.url}/account/1")
            case "/newNonce":
                reply.send(200, b"")
            case _:
                reply.refuse(400, "malformed")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients who leave."""


@contextlib.contextmanager
def hostile_ca(folder: Path) -> Iterator[HostileCA]:
    """Run one."""
    with HostileCA(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
