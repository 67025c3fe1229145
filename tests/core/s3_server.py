# SPDX-License-Identifier: MIT
"""
Object storage on loopback, over real HTTP, which fails when a test wants it to.

The server is moto's. It checks the condition of a put and then stores the object; a
lock makes one step of both, as in real object storage.
"""

from __future__ import annotations

import atexit
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import count
from typing import Any, Final
from unittest import mock

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    create_backend_app,
)
from werkzeug.serving import WSGIRequestHandler, make_server

from hsm_core._internal.stores.s3 import S3Vault, make_client

_numbers: Final = count(1)


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing."""


@dataclass
class ObjectStorage:
    """
    A running server.

    Attributes:
        port: On loopback.
        fault: Given the method and path of each request, says what becomes of it: an
            empty string, ``lose`` (done, and no answer), ``refuse`` (not done, and no
            answer), ``cut`` (half an answer), a status such as ``500``, or ``slow``
            (done after half a second).
        requests: Methods and paths so far.
    """

    port: int
    fault: Callable[[str, str], str] = lambda method, path: ""
    requests: list[tuple[str, str]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What boto3 must find in the environment."""
        return {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test-access-key",
            "AWS_SECRET_ACCESS_KEY": "test-secret-key",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    @contextmanager
    def found(self) -> Iterator[None]:
        """Let boto3 find it."""
        with mock.patch.dict(os.environ, self.environment):
            yield

    @cached_property
    def client(self) -> Any:
        """A client of this server; it may be closed, and used again."""
        with self.found():
            return make_client()

    def new_bucket(self) -> str:
        """Make a bucket, and return its name."""
        name = f"bucket-{next(_numbers)}"
        self.client.create_bucket(Bucket=name)
        return name

    def new_vault(self) -> S3Vault:
        """Return an empty vault."""
        return S3Vault(self.client, self.new_bucket(), "keys/")


class _Faulty:
    """An application whose requests may fail."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self.storage: ObjectStorage | None = None

    def __call__(self, environ: dict[str, Any], respond: Any) -> Iterable[bytes]:
        assert self.storage is not None
        request = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.storage.requests.append(request)
        fate = self.storage.fault(*request)
        if fate.isdigit():
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            respond(f"{fate} Planned", [("Content-Length", "0")])
            return [b""]
        if fate == "slow":
            time.sleep(0.5)
        answer: list[bytes] = []
        if fate != "refuse":
            with self._lock:
                answer = [b"".join(self._inner(environ, respond))]
        if fate in ("lose", "refuse"):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        if fate == "cut":
            answer = [answer[0][: len(answer[0]) // 2]]
        return answer


@contextmanager
def object_storage() -> Iterator[ObjectStorage]:
    """Run a server."""
    faulty = _Faulty(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, faulty, threaded=True, request_handler=_Quiet)
    faulty.storage = ObjectStorage(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield faulty.storage
    finally:
        faulty.storage.client.close()
        server.shutdown()
        thread.join()
        server.server_close()


@cache
def shared_storage() -> ObjectStorage:
    """Return one server for all tests of this process that plan no failures."""
    running = ExitStack()
    atexit.register(running.close)
    return running.enter_context(object_storage())
