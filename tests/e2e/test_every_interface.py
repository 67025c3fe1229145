# SPDX-License-Identifier: MIT
"""
Signatures through every interface: REST, CLI, console, key objects, PKCS#11, agent.

None of them gets round a denial, an approval, a counter or the state of a key, and each
leaves the same record, with the interface's name.
"""

from __future__ import annotations

import base64
import html
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode

import pytest

import hsm_client
from hsm_cli.interfaces.access import Access, Server
from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.server import serve
from hsm_cli.interfaces.sockets import Listener, Stream, listen
from hsm_cli.interfaces.ssh_agent.agent import SSHAgent
from hsm_cli.interfaces.ssh_agent.identities import Identities
from hsm_client.settings import ClientSettings, TokenSettings
from hsm_core.errors import HSMError
from hsm_core.model import AuditEvent, Role
from hsm_core.operations import (
    Approve,
    GetApproval,
    ListApprovals,
    ListAuditEvents,
    SuspendKey,
)
from tests.cli import rpc_client, ssh_client
from tests.cli.rpc_client import CallError
from tests.e2e.certificates import Pair
from tests.e2e.processes import ServerProcess
from tests.e2e.site import Site

POLICY: Final = """\
version: 1
extends: default
rules:
  - name: never
    effect: deny
    match: {operations: [Sign], tags: [never]}
  - name: two-people
    effect: require-approval
    match: {operations: [Sign], tags: [two-people]}
"""
MESSAGE: Final = ssh_client.file_signature("git")
"""What all of them sign; the agent signs nothing else."""

REJECTED: Final = {ck.CKR_FUNCTION_REJECTED, ck.CKR_KEY_FUNCTION_NOT_PERMITTED}
"""What PKCS#11 programs get for what the HSM refuses."""

Signs: TypeAlias = Callable[[], bool]
"""Signs once; returns whether there is a signature."""


@dataclass(frozen=True)
class Place:
    """
    Server, and its site.

    Attributes:
        other: Certificate of everybody but ada.
    """

    site: Site
    server: ServerProcess
    other: Pair

    def connect(self, principal: str, *roles: str) -> hsm_client.Connection:
        """Return an HSM of one user; ada and the others have certificates."""
        pair = self.site.client_pair if principal == "ada" else self.other
        return hsm_client.connect(
            f"https://localhost:{self.server.port}",
            token=self.site.token(principal, *roles),
            ca_bundle=self.site.authority.bundle,
            client_cert=pair.certificate,
            client_key=pair.key,
        )

    def access(self, interface: str) -> Access:
        """Return the HSM of a local interface."""
        settings = ClientSettings(
            endpoint=f"https://localhost:{self.server.port}",
            ca_bundle=self.site.authority.bundle,
            client_cert=self.site.client_pair.certificate,
            client_key=self.site.client_pair.key,
            token=TokenSettings(auth_token=self.site.token("ada", "operator")),
        )
        return Access(interface, Server(settings), notify=lambda note: None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Give a server for all tests."""
    site = Site(tmp_path_factory.mktemp("every") / "site")
    policy = site.folder / "policy.yaml"
    policy.write_text(POLICY)
    with site.start("--policy-config", str(policy)) as server:
        yield Place(site, server, site.authority.issue("other", server=False))


@contextmanager
def by_rest(place: Place, key: str) -> Iterator[Signs]:
    """Sign with a plain HTTPS client."""
    with place.site.client(place.server.port, "ada", "operator") as client:
        body = {"message": _base64(MESSAGE)}
        yield (
            lambda: (
                client.request("POST", f"/api/v1/keys/{key}/sign", body).status == 200
            )
        )


@contextmanager
def by_command(place: Place, key: str) -> Iterator[Signs]:
    """Sign with hsm-cli."""
    words = ("sign", key, "--in", "-", "--json")
    yield (
        lambda: place.site.cli(place.server.port, *words, data=MESSAGE).returncode == 0
    )


@contextmanager
def by_console(place: Place, key: str) -> Iterator[Signs]:
    """Sign with the form of the console."""
    with (
        place.site.client(place.server.port, "ada", "operator") as client,
        place.connect("ada", "operator") as hsm,
    ):
        path = f"/ui/keys/{hsm.key(key).id}/try/sign"
        form = client.request("GET", path).body.decode()
        hidden = dict(re.findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', form))
        fields = {name: html.unescape(value) for name, value in hidden.items()} | {
            "message": _base64(MESSAGE),
            "message_form": "base64",
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}

        def sign() -> bool:
            body = urlencode(fields).encode()
            answer = client.request("POST", path, body, headers)
            return answer.status == 200 and b"Signed by version" in answer.body

        yield sign


@contextmanager
def by_object(place: Place, key: str) -> Iterator[Signs]:
    """Sign with a key object of the Python client."""
    with place.connect("ada", "operator") as hsm:
        found = hsm.key(key)

        def sign() -> bool:
            try:
                return bool(found.sign(MESSAGE))
            except HSMError:
                return False

        yield sign


@contextmanager
def by_pkcs11(place: Place, key: str) -> Iterator[Signs]:
    """Sign with a PKCS#11 program."""
    access = place.access("pkcs11")

    def handle(stream: Stream) -> None:
        serve(stream, access)

    with (
        _listening(place, "pkcs11", handle) as path,
        rpc_client.Client(path) as client,
    ):
        client.initialize()
        session = client.open_session()
        (handle_of_key,) = client.find(
            session,
            [
                (ck.CKA_CLASS, rpc_client.number(ck.CKO_PRIVATE_KEY)),
                (ck.CKA_LABEL, rpc_client.data(key.encode())),
            ],
        )
        how = rpc_client.mechanism(ck.CKM_ECDSA_SHA256)

        def sign() -> bool:
            try:
                return bool(client.sign(session, how, handle_of_key, MESSAGE))
            except CallError as error:
                if error.rv not in REJECTED:
                    raise
                return False

        yield sign
    access.close()


@contextmanager
def by_agent(place: Place, key: str) -> Iterator[Signs]:
    """Sign with an SSH agent."""
    access = place.access("ssh-agent")
    identities = Identities((key,), (), lambda note: None)
    agent = SSHAgent(access, identities, wait_seconds=0, log=lambda line: None)
    with _listening(place, "agent", agent.serve) as path:
        served = ssh_client.Served(path)
        with served.client() as client:
            blob = client.identities()[key]
            yield lambda: client.sign(blob, MESSAGE) != b""
    access.close()


@contextmanager
def _listening(
    place: Place, name: str, handle: Callable[[Stream], None]
) -> Iterator[Path]:
    path = place.site.folder / "run" / f"{name}.sock"
    with listen(path, log=lambda line: None) as listener:
        thread = threading.Thread(target=Listener.serve, args=(listener, handle))
        thread.start()
        try:
            yield path
        finally:
            listener.stop()
            thread.join()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(frozen=True)
class Interface:
    """
    Interface under test.

    Attributes:
        opened: Opens it for one key.
        name: Name in records, as the server knows it.
        claimed: What its program says of itself, a pattern.
    """

    opened: Callable[[Place, str], AbstractContextManager[Signs]]
    name: str
    claimed: str


INTERFACES: Final = {
    "rest": Interface(by_rest, "rest", ""),
    "cli": Interface(by_command, "rest", "cli"),
    "console": Interface(by_console, "console", ""),
    "key object": Interface(by_object, "rest", ""),
    "pkcs11": Interface(by_pkcs11, "rest", r"pkcs11: .*uid \d+"),
    "ssh-agent": Interface(by_agent, "rest", r"ssh-agent: .*uid \d+"),
}


@pytest.fixture(params=INTERFACES)
def interface(request: pytest.FixtureRequest) -> Interface:
    """Give each interface."""
    return INTERFACES[request.param]


def make(place: Place, *tags: str) -> str:
    """Make a key; return its name."""
    name = f"key-{len(MADE)}"
    MADE.append(name)
    with place.connect("ada", "operator") as hsm:
        hsm.create("EC-P256", name=name, tags=["ssh-sign:git", *tags])
    return name


MADE: Final[list[str]] = []


def records(place: Place, key: str) -> list[AuditEvent]:
    """Return the records of signatures with a key, oldest first."""
    with place.connect("uma", "auditor", "operator") as hsm:
        found = hsm.execute(ListAuditEvents(kind=("Sign",), limit=1000)).items
        key_id = hsm.key(key).id
    return [e.event for e in reversed(found) if e.event.key_id == key_id]


def uses(place: Place, key: str) -> int:
    """Return how often the material of a key was used."""
    with place.connect("ada", "operator") as hsm:
        use = hsm.key(key).info.use
        assert use is not None
        return use.uses


def test_a_use(place: Place, interface: Interface) -> None:
    """A signature counts once, and leaves the record of every other interface."""
    key = make(place)

    with interface.opened(place, key) as sign:
        assert [True, True] == [sign(), sign()]

    assert 2 == uses(place, key)
    found = records(place, key)
    assert 2 == len(found)
    for event in found:
        assert event.caller is not None
        assert re.fullmatch(interface.claimed, event.caller.interface_claimed)
        shown = (
            *(event.code, event.version, event.rule, event.approval_id),
            *(event.caller.principal, event.caller.roles, event.caller.interface),
            *(event.parameters["hash"], event.parameters["scheme"]),
        )
        assert (
            *("ok", 1, "role:Operator", ""),
            *("ada", (Role.OPERATOR.value,), interface.name),
            *("SHA-256", "ECDSA"),
        ) == shown


def test_a_denial(place: Place, interface: Interface) -> None:
    """What the policy denies is denied, and counts nothing."""
    key = make(place, "never")

    with interface.opened(place, key) as sign:
        assert not sign()

    assert 0 == uses(place, key)
    assert [("access_denied", "never")] == [
        (event.code, event.rule) for event in records(place, key)
    ]


def test_a_state(place: Place, interface: Interface) -> None:
    """A key that is suspended while a program has it signs nothing."""
    key = make(place)

    with interface.opened(place, key) as sign:
        assert sign()
        with place.connect("ada", "operator") as hsm:
            hsm.execute(SuspendKey(key_id=key))
        assert not sign()

    assert 1 == uses(place, key)
    assert "ok" == records(place, key)[0].code
    assert {"wrong_state"} >= {event.code for event in records(place, key)[1:]}


def test_an_approval(place: Place, interface: Interface) -> None:
    """What needs approval is refused; once it is granted, the next try succeeds."""
    key = make(place, "two-people")

    with interface.opened(place, key) as sign:
        assert not sign()
        assert 0 == uses(place, key)
        approval = _approve(place, key)
        assert sign()
        assert not sign(), "one approval is for one signature"

    assert 1 == uses(place, key)
    (done,) = (event for event in records(place, key) if event.code == "ok")
    assert approval == done.approval_id
    with place.connect("bob", "operator") as hsm:
        assert "consumed" == hsm.execute(GetApproval(approval_id=approval)).state


def _approve(place: Place, key: str) -> str:
    """Approve the one open request for a key as another person; return its ID."""
    with place.connect("bob", "operator") as hsm:
        key_id = hsm.key(key).id
        requests: list[Any] = [
            found
            for found in hsm.execute(ListApprovals()).items
            if getattr(found.operation, "key_id", key_id) == key_id
            and found.state == "pending"
        ]
        (request,) = requests
        hsm.execute(Approve(approval_id=request.approval_id, digest=request.digest))
        return str(request.approval_id)
