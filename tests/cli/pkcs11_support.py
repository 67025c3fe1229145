# SPDX-License-Identifier: MIT
"""Token for tests: an embedded HSM behind the PKCS#11 interface, on a Unix socket."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import hsm_core
from hsm_cli.interfaces.access import Access, Embedded
from hsm_cli.interfaces.pkcs11.server import serve
from hsm_cli.interfaces.sockets import Stream, listen
from hsm_core.operations import UpdateKey
from tests.cli.rpc_client import CallError, Client
from tests.support import require_program, require_service

USER = "ada"
MODULES = Path("/usr/lib")


class Token:
    """
    Token on a socket.

    Attributes:
        socket: Path of the socket.
        access: HSM of the interface.
        notes: What the interface has said to its user.
    """

    def __init__(self, folder: Path, access: Access, notes: list[str]) -> None:
        self.folder = folder
        self.socket = folder / "run" / "pkcs11.sock"
        self.access = access
        self.notes = notes

    def client(self, version: int = 2) -> Client:
        """Return a client that has begun."""
        client = Client(self.socket, version)
        client.initialize()
        return client

    def tool(self, *words: str | Path) -> str:
        """Run pkcs11-tool through p11-kit's module; return what it prints."""
        found = self.run(require_program("pkcs11-tool"), "--module", module(), *words)
        assert found.returncode == 0, found.stderr
        return found.stdout

    def run(self, *words: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run a program that finds the socket in its environment."""
        return subprocess.run(
            words,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(self.folder),
                "P11_KIT_SERVER_ADDRESS": f"unix:path={self.socket}",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def module() -> Path:
    """Return p11-kit's client module, or skip the test."""
    found = list(MODULES.glob("*/pkcs11/p11-kit-client.so"))
    require_service("p11-kit's client module", found)
    return found[0]


@contextmanager
def refused(rv: int) -> Iterator[None]:
    """Expect that a call fails with this CK_RV."""
    with pytest.raises(CallError) as caught:
        yield
    assert rv == caught.value.rv


def refusal(client: Client, call: int, signature: str, arguments: bytes) -> int:
    """Return the CK_RV of a call that fails."""
    with pytest.raises(CallError) as caught:
        client.call(call, signature, arguments)
    return caught.value.rv


@contextmanager
def running_token(
    folder: Path,
    *,
    pin: bytes = b"",
    roles: tuple[str, ...] = ("operator",),
    policy: Path | None = None,
    others: tuple[Access, ...] = (),
) -> Iterator[Token]:
    """
    Serve the token of the HSM in *folder*, which is made if there is none.

    More tokens, of *others*, are in the slots after it.
    """
    root = folder / "root.key"
    if not root.exists():
        hsm_core.open(folder / "hsm", root=root, create=True).close()
    notes: list[str] = []
    connector = Embedded(
        folder / "hsm", root, principal=USER, roles=roles, policy=policy
    )
    access = Access("pkcs11", connector, pin=pin, notify=notes.append)
    token = Token(folder, access, notes)

    def handle(stream: Stream) -> None:
        serve(stream, access, *others)

    with listen(token.socket, log=notes.append) as listener:
        thread = threading.Thread(target=listener.serve, args=(handle,))
        thread.start()
        try:
            yield token
        finally:
            listener.stop()
            thread.join()
            access.close()


def create(folder: Path, **keys: str) -> None:
    """Create keys, by name and algorithm, in the HSM of a folder that is not open."""
    root = folder / "root.key"
    with hsm_core.open(folder / "hsm", root=root, create=True) as hsm:
        for name, algorithm in keys.items():
            hsm.as_user(USER, roles=["operator"]).create(algorithm, name=name)


def rotate(folder: Path, name: str) -> None:
    """Rotate a key of the HSM of a folder that is not open."""
    with hsm_core.open(folder / "hsm", root=folder / "root.key") as hsm:
        hsm.as_user(USER, roles=["operator"]).key(name).rotate()


def tag(folder: Path, name: str, *tags: str) -> None:
    """Give a key of the HSM of a folder that is not open these tags."""
    with hsm_core.open(folder / "hsm", root=folder / "root.key") as hsm:
        hsm.as_user(USER, roles=["administrator"]).execute(
            UpdateKey(key_id=name, tags=tags)
        )
