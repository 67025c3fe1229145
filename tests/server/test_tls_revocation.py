# SPDX-License-Identifier: MIT
"""A client that is revoked in a file is let in no more, without a signal."""

import contextlib
import http.client
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pki import Issued, Issuer, self_signed_root
from tests.server.family import wait_until
from tests.server.pem_files import pem
from tests.server.process import Running, Site, client_context, connect
from tests.server.support import mint


class Clients:
    """An authority of clients, with its list of those that are revoked."""

    def __init__(self, folder: Path) -> None:
        self.issuer: Issuer = self_signed_root("Clients")
        self.folder = folder
        self.ca, self.crl = folder / "clients.pem", folder / "clients.crl"
        self.ca.write_bytes(pem(self.issuer.certificate))
        self.revoke()

    def revoke(self, *clients: Issued) -> None:
        """Let the list name these clients."""
        new = self.folder / "new.crl"
        new.write_bytes(self.issuer.revocation_list(*(c.certificate for c in clients)))
        new.replace(self.crl)


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
    known, lost = (clients.issuer.issue(name) for name in ("known", "lost"))
    contexts = [
        client_context(site.authority, client.write(site.folder, name))
        for name, client in {"known": known, "lost": lost}.items()
    ]
    before = [is_let_in(server, context) for context in contexts]
    kept = http.client.HTTPSConnection(*server.address, context=contexts[1], timeout=20)
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
