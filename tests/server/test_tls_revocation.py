# SPDX-License-Identifier: MIT
"""A client that is revoked in a file is let in no more, without a signal."""

import contextlib
import http.client
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.family import wait_until
from tests.server.process import Running, Site, client_context, connect
from tests.server.race_site import Clients
from tests.server.support import mint


@pytest.fixture
def clients(tmp_path: Path) -> Clients:
    """Give an authority."""
    return Clients(tmp_path)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Give a folder to serve from."""
    return Site(tmp_path)


@pytest.fixture
def server(site: Site, clients: Clients) -> Iterator[Running]:
    """Give a server that looks at its files all the time."""
    with site.serve(
        *("--workers", "2", "--cert-reload-interval-secs", "0.2"),
        *("--client-ca", str(clients.ca), "--client-crl", str(clients.crl)),
    ) as running:
        yield running
        assert 0 == running.stop()


def is_let_in(server: Running, context: ssl.SSLContext) -> bool:
    """Return whether a new connection is served."""
    try:
        with connect(server.address, context) as tls:
            tls.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            return tls.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False


def test_a_revoked_client_is_let_in_no_more(
    site: Site, server: Running, clients: Clients
) -> None:
    """By no front end, nor over a connection that it has; others are let in."""
    (_, known), (lost, files) = (clients.issue(name) for name in ("known", "lost"))
    contexts = [client_context(site.authority, pair) for pair in (known, files)]
    before = [is_let_in(server, context) for context in contexts]
    kept = http.client.HTTPSConnection(*server.address, context=contexts[1], timeout=60)
    kept.connect()
    kept.auto_open = 0
    with contextlib.closing(kept):
        headers = {"Authorization": f"Bearer {mint()}"}
        kept.request("GET", "/api/v1/status", headers=headers)
        answer = kept.getresponse()
        answer.read()
        clients.revoke(lost)
        wait_until(lambda: not any(is_let_in(server, contexts[1]) for _ in range(4)))
        # It was idle, and so was closed.
        assert b"" == kept.sock.recv(1)

    assert 200 == answer.status
    assert [True, True] == before
    assert is_let_in(server, contexts[0])
