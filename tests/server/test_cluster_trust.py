# SPDX-License-Identifier: MIT
"""A token key or certificate that one server's files withdraw counts on none."""

from __future__ import annotations

import contextlib
import resource
import signal
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from tests.pki import Issuer, self_signed_root
from tests.postgresql import PostgreSQL
from tests.server import small_seals
from tests.server.family import Family, wait_until
from tests.server.process import Running, client_context
from tests.server.race_site import Clients
from tests.server.support import b64
from tests.server.test_cluster import ClusterSite
from tests.server.token_kit import signer, write_config

ALGORITHMS = ("ES256", "EdDSA", "RS256")
_COMMON_NAME = x509.NameAttribute(
    NameOID.COMMON_NAME, " client  CERTIFICATES", _ASN1Type.PrintableString
)
_REWRITTEN = x509.Name([_COMMON_NAME])
"""
Issuer of the revocation lists: as in the certificates, but for what doesn't count.

Certificates have it as a UTF-8 string (RFC 5280, section 7.1).
"""


class Node:
    """
    One server, whose files are its own.

    Args:
        site: Where it runs.

        name: Name of the node.

        authority: CA of client certificates.
    """

    def __init__(self, site: ClusterSite, name: str, authority: Issuer) -> None:
        self.folder = site.folder / name
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.clients = Clients(self.folder, authority, _REWRITTEN)
        self._site = site
        self._name = name
        self.server: Running

    def trust(self, *algorithms: str) -> None:
        """Write the file of its token keys."""
        sections = [signer(name).section(name) for name in algorithms]
        write_config(self.folder / "jwt.json", sections)

    def serve(self, before: Sequence[str] = ()) -> Any:
        """Return a context in which it runs; see `Site.serve`."""
        config = str(self.folder / "jwt.json")
        return self._site.serve(
            *self._site.node(self._name),
            *("--auth-jwt-config", config, "--auth-jwt-reload-secs", "3600"),
            *("--client-auth", "optional", "--cert-reload-interval-secs", "3600"),
            *("--client-ca", str(self.clients.ca)),
            *("--client-crl", str(self.clients.crl)),
            before=before,
        )

    def reload(self, event: str = "token keys loaded") -> None:
        """Let it read its files, and wait until it says that they are in force."""
        before = self._count(event)
        self.server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self._count(event) > before)

    def _count(self, event: str) -> int:
        return sum(line["event"] == event for line in self._site.log())

    def signs(
        self, key_id: str, algorithm: str, identity: tuple[Path, Path] | None = None
    ) -> int:
        """Sign with a token of a key, and a certificate; return the status."""
        token = signer(algorithm).token(algorithm)
        path, body = f"/api/v1/keys/{key_id}/sign", {"message": b64(b"hello")}
        context = client_context(self._site.authority, identity)
        answer = self.server.send("POST", path, body, token=token, context=context)
        return answer.status


@pytest.fixture
def nodes(postgresql: PostgreSQL, tmp_path: Path) -> Iterator[list[Node]]:
    """Give two running servers that trust the same keys of tokens."""
    site = ClusterSite(tmp_path, postgresql.url(postgresql.new_database()))
    with ExitStack() as stack:
        authority = self_signed_root("Client Certificates")
        found = [Node(site, name, authority) for name in "ab"]
        for node in found:
            node.trust(*ALGORITHMS)
            node.server = stack.enter_context(node.serve())
        yield found


def new_key_of(node: Node) -> str:
    """Create a key with a token that stays good."""
    token = signer("EdDSA").token("EdDSA")
    body = {"algorithm": "Ed25519"}
    answer = node.server.send("POST", "/api/v1/keys", body, token=token)
    assert 201 == answer.status, answer.body
    key_id: str = answer.json["key_id"]
    return key_id


@contextlib.contextmanager
def asked_while_stopped(
    node: Node, *requests: Callable[[], int]
) -> Iterator[list[int]]:
    """
    Stop the vault of a node for the block, and for the start of requests after it.

    Its answers, in the order of the requests, are there once the block has ended.
    """
    answers: list[int] = []
    family = Family(node.server)
    with ThreadPoolExecutor(len(requests)) as pool:
        family.kill_vault(signal.SIGSTOP)
        try:
            yield answers
            begun = [pool.submit(request) for request in requests]
            time.sleep(0.3)
        finally:
            family.kill_vault(signal.SIGCONT)
        answers += [request.result() for request in begun]


def test_a_removed_token_key(nodes: list[Node]) -> None:
    """What a stopped vault gets after another node's reload is refused."""
    a, b = nodes
    key_id = new_key_of(a)
    assert [200, 200] == [node.signs(key_id, "ES256") for node in nodes]
    a.trust("EdDSA", "RS256")

    with asked_while_stopped(
        b, *(partial(b.signs, key_id, name) for name in ("ES256", "EdDSA"))
    ) as answers:
        a.reload()

    assert [401, 200] == answers
    assert 401 == a.signs(key_id, "ES256")


def test_a_revoked_certificate(nodes: list[Node]) -> None:
    """
    What a stopped vault gets after another node read its list is refused.

    The list writes the name of its issuer in another way than the certificates.
    """
    a, b = nodes
    key_id = new_key_of(a)
    revoked, ann = a.clients.issue("ann")
    _, bob = a.clients.issue("bob")
    assert [200, 200] == [b.signs(key_id, "EdDSA", who) for who in (ann, bob)]
    a.clients.revoke(revoked)

    with asked_while_stopped(
        b, *(partial(b.signs, key_id, "EdDSA", who) for who in (ann, bob))
    ) as answers:
        a.reload("revocations shared")

    assert [401, 200] == answers
    with pytest.raises((ConnectionError, ssl.SSLError)):
        a.signs(key_id, "EdDSA", ann)


def test_a_vault_without_room_for_what_is_revoked(nodes: list[Node]) -> None:
    """It asks for it again, until it has a descriptor free."""
    a, b = nodes
    key_id = new_key_of(a)
    issued, ann = a.clients.issue("ann")
    assert 200 == b.signs(key_id, "EdDSA", ann)
    a.clients.revoke(issued)
    vault = Family(a.server).vault
    soft, hard = resource.prlimit(vault, resource.RLIMIT_NOFILE)
    resource.prlimit(vault, resource.RLIMIT_NOFILE, (0, hard))
    a.reload("reload failed")
    time.sleep(1)
    assert 200 == b.signs(key_id, "EdDSA", ann)
    resource.prlimit(vault, resource.RLIMIT_NOFILE, (soft, hard))

    wait_until(lambda: 401 == b.signs(key_id, "EdDSA", ann))


def test_more_revoked_certificates_than_can_be_shared(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """The former list stays in force, here and on the others, until a shorter one."""
    site = ClusterSite(tmp_path, postgresql.url(postgresql.new_database()))
    node = Node(site, "a", self_signed_root("Client Certificates"))
    node.trust("EdDSA")
    issued, ann = node.clients.issue("ann")
    others = [
        SimpleNamespace(certificate=SimpleNamespace(serial_number=number))
        for number in range(1, small_seals.MOST_BYTES // 64 + 1)
    ]
    with node.serve((sys.executable, small_seals.__file__)) as node.server:
        key_id = new_key_of(node)
        node.clients.revoke(issued, *others)
        node.reload("reload failed")
        assert 200 == node.signs(key_id, "EdDSA", ann)
        node.clients.restore(*others)
        node.reload("revocations shared")
        with pytest.raises((ConnectionError, ssl.SSLError)):
            node.signs(key_id, "EdDSA", ann)

    [failed] = (line for line in site.log() if line["event"] == "reload failed")
    assert "too many entries to share" in failed["reason"]
    assert not any(line["event"] == "unexpected" for line in site.log())


def test_an_older_file(nodes: list[Node]) -> None:
    """A server that starts with the file of before refuses the key, and says so."""
    a, b = nodes
    key_id = new_key_of(a)
    assert 0 == b.server.stop()
    a.trust("EdDSA", "RS256")
    a.reload()

    with b.serve() as server:
        b.server = server
        assert [401, 200] == [b.signs(key_id, name) for name in ("ES256", "EdDSA")]
        wait_until(
            lambda: any(
                line["event"] == "token keys withdrawn" and line["reason"][:2] == "1 "
                for line in b._site.log()  # noqa: SLF001 (the server writes it)
            )
        )
        a.trust(*ALGORITHMS)
        a.reload()
        wait_until(lambda: b.signs(key_id, "ES256") == 200)
