# SPDX-License-Identifier: MIT
"""`hsm_client`: responses as bytes of HTTP/1.1, and connections that end."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from hsm_core import operations as ops
from hsm_core.errors import TransportError
from tests.client.certificates import Certificates
from tests.client.stub import Received, Stub
from tests.client.ways import WAYS, Remote

RANDOM = b"12345678"
RESULT = b'{"random":"' + base64.b64encode(RANDOM) + b'"}'
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKS = b"5\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (RESULT[:5], len(RESULT) - 5, RESULT[5:])


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Give each client in turn."""
    return str(request.param)


@contextmanager
def server(
    certificates: Certificates, serve: Callable[[ssl.SSLSocket], None]
) -> Iterator[str]:
    """Accept one connection, call *serve* with it, and close it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            plain, _ = listener.accept()
            with plain, suppress(OSError):
                plain.settimeout(30)
                with context.wrap_socket(plain, server_side=True) as secure:
                    serve(secure)

        thread = threading.Thread(target=run)
        thread.start()
        yield f"https://localhost:{listener.getsockname()[1]}"
        thread.join()


def answering(response: bytes) -> Callable[[ssl.SSLSocket], None]:
    """Return a server of one response, which ends with its connection."""

    def serve(secure: ssl.SSLSocket) -> None:
        received = b""
        while not received.endswith(b'{"length":8}'):
            received += secure.recv(4096)
        secure.sendall(response)

    return serve


@pytest.mark.parametrize(
    "response",
    [
        OK + b"Content-Length: %d\r\n\r\n" % len(RESULT) + RESULT,
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS,
        OK + b"Connection: close\r\n\r\n" + RESULT,
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"\r\n" + RESULT,
        b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n" * 2 + OK + b"\r\n" + RESULT,
    ],
    ids=["length", "chunks", "until-closed", "continue", "early-hints"],
)
def test_body(remote: Remote, certificates: Certificates, response: bytes) -> None:
    """A body ends after its length, with its last chunk, or with the connection."""
    with server(certificates, answering(response)) as endpoint:
        client = remote(endpoint=endpoint)

        assert RANDOM == client.execute(ops.GenerateRandom(length=8)).random


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"SSH-2.0-OpenSSH_10.0\r\n",
        OK + b"Content-Le",
        OK + b"Content-Length: 1000\r\n\r\n" + RESULT,
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS[:-5],
        OK + b"Transfer-Encoding: chunked\r\n\r\nmany\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20 + OK + b"\r\n" + RESULT[:-1],
    ],
    ids=["nothing", "stranger", "in-head", "in-body", "in-chunks", "no-chunk", "hints"],
)
def test_incomplete(
    remote: Remote, certificates: Certificates, response: bytes
) -> None:
    """A response that is cut off, or none, is a lost one; a use is not sent again."""
    with server(certificates, answering(response)) as endpoint:
        with pytest.raises(TransportError) as caught:
            remote(endpoint=endpoint).execute(ops.GenerateRandom(length=8))

    assert caught.value.facts["reason"] in {"lost", "answer"}


def goes_on(
    remote: Remote, certificates: Certificates, begin: bytes, line: bytes, told: str
) -> None:
    """Meet a server that sends *begin*, and then *line* again and again."""

    def serve(secure: ssl.SSLSocket) -> None:
        secure.recv(4096)
        secure.sendall(begin)
        for _ in range(90):
            secure.sendall(line)
            gone.wait(0.2)

    gone = threading.Event()
    with server(certificates, serve) as endpoint:
        client = remote(endpoint=endpoint, timeout_seconds=2)
        with pytest.raises(TransportError, match=told):
            client.execute(ops.GenerateRandom(length=8))
        gone.set()


HEADER = b"X: 1\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize("way", ["blocking"])
@pytest.mark.parametrize(("begin", "line"), [(OK, HEADER), (CONTINUE, CONTINUE)])
def test_a_head_that_does_not_end(
    remote: Remote, certificates: Certificates, begin: bytes, line: bytes
) -> None:
    """A server that goes on with headers gets no more time than a silent one."""
    goes_on(remote, certificates, begin, line, "did not respond within 2 seconds")


@pytest.mark.parametrize(
    ("begin", "line"), [(CHUNKS[:-2], HEADER), (b"1;x=1\r\n \r\n",) * 2]
)
def test_chunks_that_do_not_end(
    remote: Remote, certificates: Certificates, begin: bytes, line: bytes
) -> None:
    """A server that goes on with chunks or trailers has no more time than the body."""
    begin = OK + b"Transfer-Encoding: chunked\r\n\r\n" + begin
    goes_on(remote, certificates, begin, line, "not complete its response within 2")


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: %d\r\nContent-Length: 5\r\n\r\n",
        b"Content-Length: 5\r\nContent-Length: %d\r\n\r\n",
        b"Content-Length: +%d\r\n\r\n",
        b"Content-Length: %d, 5\r\n\r\n",
        b"Content-Length: -1\r\nX: %d\r\n\r\n",
    ],
)
def test_several_lengths(
    remote: Remote, certificates: Certificates, head: bytes
) -> None:
    """A response without a single length is none: its rest could become the next."""
    response = OK + head % len(RESULT) + RESULT
    with server(certificates, answering(response)) as endpoint:
        with pytest.raises(TransportError) as caught:
            remote(endpoint=endpoint).execute(ops.GenerateRandom(length=8))

    assert caught.value.facts["reason"] in {"lost", "answer"}


def test_closed_while_idle(remote: Remote, stub: Stub) -> None:
    """A kept connection that the server has closed is replaced, also for a use."""
    client, gone = remote(), threading.Event()

    def leave(handler: Any, request: Received) -> None:
        handler.behave(request)
        handler.hang_up()
        gone.set()

    stub.faults.append(leave)
    client.execute(ops.GenerateRandom(length=8))
    assert gone.wait(60)

    assert 8 == len(client.execute(ops.GenerateRandom(length=8)).random)
    assert 2 == stub.connections


def test_more_than_a_response(stub: Stub, remote: Remote) -> None:
    """What a server sends after a response is never taken for the next one."""
    client = remote()

    def add(handler: Any, request: Received) -> None:
        # Longer than what is read at once, so that a part stays in the TLS layer.
        first = RESULT + b" " * 9000
        head = OK + b"Content-Length: %d\r\n\r\n"
        handler.wfile.write(head % len(first) + first + head % len(RESULT) + RESULT)

    stub.faults.append(add)
    client.execute(ops.GenerateRandom(length=8))

    assert RANDOM != client.execute(ops.GenerateRandom(length=8)).random


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("way", ["blocking"])
def test_a_forked_process_has_connections_of_its_own(
    stub: Stub, remote: Remote
) -> None:
    """Parent and child go on with a client without sharing a TLS connection."""
    client = remote()
    client.execute(ops.GenerateRandom(length=8))

    child = os.fork()
    if not child:
        try:
            client.execute(ops.GenerateRandom(length=8))
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)

    assert status == 0
    client.execute(ops.GenerateRandom(length=8))
    assert 2 == stub.connections
