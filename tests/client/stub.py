# SPDX-License-Identifier: MIT
"""
A small HTTPS server that executes operations by the REST table, and can misbehave.

It stands in for hsm-server where that is not installed.
"""

import base64
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from hsm_core import wire
from hsm_core.error_records import asked_approval
from hsm_core.errors import HSMError
from hsm_core.operations import OPERATIONS, Operation, Route
from hsm_core.protocols import HSM
from hsm_core.rest import API_PREFIX, APPROVAL_HEADER, RESULT_HEADER
from tests.client.certificates import Certificates

TOKEN = "stub.bearer.token"
PROBLEM = "application/problem+json"
_TUPLES = frozenset({"states", "tags", "usages"})


@dataclass(frozen=True)
class Received:
    """A request as it came in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Stub:
    """
    A running stub.

    Attributes:
        faults: What is done to the next requests, one each, before it behaves again.
        received: All requests so far.
        connections: How many connections clients have made.
    """

    hsm: HSM
    port: int = 0
    faults: list["Fault"] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    connections: int = 0

    @property
    def endpoint(self) -> str:
        """Where it is."""
        return f"https://localhost:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20
    server: "_Server"

    def log_message(self, format: str, *args: Any) -> None:
        return

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        request = Received(
            self.command,
            self.path,
            {k.lower(): v for k, v in self.headers.items()},
            body,
        )
        stub = self.server.stub
        stub.received.append(request)
        if stub.faults:
            stub.faults.pop(0)(self, request)
        else:
            self.behave(request)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815

    def behave(self, request: Received) -> None:
        """Execute the request and answer it."""
        status, kind, body = self.execute(request)
        headers = {}
        wanted = request.headers.get("accept", "")
        if kind == "application/json" and wanted.startswith("application/octet-stream"):
            fields = json.loads(body)
            operation, _ = _match(request.method, urlsplit(request.target).path)
            body = base64.b64decode(fields.pop(operation.route.raw_response))
            headers[RESULT_HEADER] = json.dumps(fields)
            kind = "application/octet-stream"
        self.reply(status, kind, body, headers)

    def execute(self, request: Received) -> tuple[int, str, bytes]:
        """Execute the request, and return status, media type and body."""
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, "text/plain", b"no"
        try:
            route, operation = _decode(request)
            key = request.headers.get("idempotency-key")
            result = self.server.stub.hsm.execute(
                operation,
                idempotency_key=key,
                approval_id=request.headers.get(APPROVAL_HEADER.lower(), ""),
            )
        except HSMError as error:
            if (asked := asked_approval(error)) is not None:
                return 202, "application/json", wire.encode_json(asked)
            return 422, PROBLEM, problem(error)
        return route.success, "application/json", wire.encode_json(result)

    def reply(
        self,
        status: int,
        kind: str,
        body: bytes,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Write an answer."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self) -> None:
        """Close the connection."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


Fault = Callable[[_Handler, Received], None]


def answer(
    status: int, kind: str, body: bytes, headers: dict[str, str] | None = None
) -> Fault:
    """Return a fault: this response, without executing anything."""
    return lambda handler, _: handler.reply(status, kind, body, headers)


def drop(*, executed: bool) -> Fault:
    """Return a fault: no response, with or without executing the request first."""

    def fault(handler: _Handler, request: Received) -> None:
        if executed:
            handler.execute(request)
        handler.hang_up()

    return fault


def stream(
    blocks: Sequence[bytes], *, whole: bool = True, then_wait: bool = False
) -> Fault:
    """
    Return a fault: a stream of events.

    Args:
        blocks: What it sends.

        whole: Whether it ends in order; else the connection breaks.

        then_wait: Whether it goes on in silence until the client leaves.
    """

    def fault(handler: _Handler, request: Received) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        with suppress(OSError):
            for block in filter(None, blocks):
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
            if then_wait:
                handler.connection.recv(1)
            elif whole:
                handler.wfile.write(b"0\r\n\r\n")
        if not whole or then_wait:
            handler.hang_up()

    return fault


def problem(error: HSMError, request_id: str = "request-1") -> bytes:
    """Return an error as the problem document that hsm-server makes of it."""
    return wire.encode_json(
        {
            "type": f"urn:ferrohsm:error:{error.code}",
            "title": error.code,
            "status": 422,
            "detail": str(error),
            "code": error.code,
            "request_id": request_id,
            "facts": error.facts,
        }
    )


def _decode(request: Received) -> tuple[Route, Operation[Any]]:
    parts = urlsplit(request.target)
    kind, path = _match(request.method, parts.path)
    route = kind.route
    query: dict[str, Any] = dict(
        parse_qsl(parts.query, strict_parsing=bool(parts.query))
    )
    for name in _TUPLES & query.keys():
        query[name] = query[name].split(",")
    if request.headers.get("content-type") == "application/octet-stream":
        fields = {**query, **path, route.raw_request: request.body}
        return route, wire.convert(fields, kind, strict=False)
    if not route.has_body:
        return route, wire.convert({**query, **path}, kind, strict=False)
    return route, wire.decode_operation(request.body, kind, path=path)


def _match(method: str, path: str) -> tuple[type[Operation[Any]], dict[str, str]]:
    for kind in OPERATIONS:
        route = kind.route
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", API_PREFIX + route.path)
        found = re.fullmatch(pattern, path)
        if found and method == route.method:
            return kind, {k: unquote(v) for k, v in found.groupdict().items()}
    raise AssertionError(f"no route for {method} {path}")


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def __init__(self, stub: Stub, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.stub = stub
        self._context = context
        self._open: set[socket.socket] = set()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # The handshake is made in the connection's own thread.
        with suppress(OSError):
            secure = self._context.wrap_socket(request, server_side=True)
            self._open.add(secure)
            self.stub.connections += 1
            super().process_request_thread(secure, client_address)
            self._open.discard(secure)

    def shutdown_request(self, request: Any) -> None:
        with suppress(OSError):
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        return

    def server_close(self) -> None:
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()


@contextmanager
def serving(
    hsm: HSM,
    certificates: Certificates,
    *,
    wants_client_certificate: bool = False,
    elsewhere: bool = False,
) -> Iterator[Stub]:
    """
    Run a stub in threads.

    Args:
        hsm: Executes the operations.

        certificates: Its identity, and whom it trusts.

        wants_client_certificate: Refuse clients without one.

        elsewhere: Show a certificate for another name.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(
        certificates.elsewhere if elsewhere else certificates.server
    )
    if wants_client_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates.ca)
    stub = Stub(hsm)
    server = _Server(stub, context)
    stub.port = server.server_address[1]
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}
    )
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
