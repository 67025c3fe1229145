# SPDX-License-Identifier: MIT
"""SSH agent over an HSM in memory, and a client that sends it any bytes."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsm_cli.interfaces.access import Access
from hsm_cli.interfaces.sockets import listen
from hsm_cli.interfaces.ssh_agent.agent import SSHAgent
from hsm_cli.interfaces.ssh_agent.encoding import SSHReader, string, uint32
from hsm_cli.interfaces.ssh_agent.identities import Identities
from hsm_core.factory import OpenHSM
from hsm_core.protocols import HSM
from hsm_core.testing import caller

SECONDS = 60
FAILURE, SUCCESS = b"\x05", b"\x06"


class InMemory:
    """Way of an interface to an HSM in memory."""

    shown = label = "memory"
    takes_pin = False
    is_embedded = True
    is_renewable = False

    def __init__(self, gateway: OpenHSM) -> None:
        self.gateway = gateway

    def open(self, pin: str) -> None:
        """Do nothing: it is open."""

    def act_for(self, interface: str, program: str) -> HSM:
        """Return the HSM for its administrator and operator."""
        return self.gateway.act_as(caller())

    def close(self) -> None:
        """Do nothing: the test closes it."""


class Host:
    """Server of SSH that proves its sessions."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public_key = string("ssh-ed25519") + string(raw)

    def sign(self, data: bytes) -> bytes:
        """Return a signature in the format of SSH."""
        return string("ssh-ed25519") + string(self._key.sign(data))

    def binding(self, session_id: bytes, *, forwards: bool = False) -> bytes:
        """Return the request that binds a connection to a session."""
        return (
            b"\x1b"
            + string("session-bind@openssh.com")
            + string(self.public_key)
            + string(session_id)
            + string(self.sign(session_id))
            + bytes([forwards])
        )


class Client:
    """Connection to an agent."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection

    def ask(self, request: bytes) -> bytes:
        """Send a request, and return the response."""
        self.socket.sendall(string(request))
        return self._read(int.from_bytes(self._read(4), "big"))

    def _read(self, length: int) -> bytes:
        found = b""
        while len(found) < length:
            part = self.socket.recv(length - len(found))
            if not part:
                raise EOFError
            found += part
        return found

    def identities(self) -> dict[str, bytes]:
        """Return blobs by comment; the first one if there are several."""
        reader = SSHReader(self.ask(b"\x0b"))
        assert reader.byte() == 12
        found: dict[str, bytes] = {}
        for _ in range(reader.uint32()):
            blob, comment = reader.string(), reader.text()
            found.setdefault(comment, blob)
        reader.end()
        return found

    def sign(self, blob: bytes, data: bytes, flags: int = 0) -> bytes:
        """Return the signature, or an empty string if the agent refuses."""
        answer = self.ask(b"\x0d" + string(blob) + string(data) + uint32(flags))
        if answer == FAILURE:
            return b""
        reader = SSHReader(answer)
        assert reader.byte() == 14
        found = reader.string()
        reader.end()
        return found


class Served:
    """Agent that serves, and the lines of its log."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Give a new connection."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SECONDS)
            connection.connect(str(self.path))
            yield Client(connection)


@contextmanager
def serving(
    gateway: OpenHSM,
    folder: Path,
    *,
    keys: Sequence[str] = (),
    certificates: Sequence[Path] = (),
    wait_seconds: float = 0,
    pin: bytes = b"",
) -> Iterator[Served]:
    """Serve an agent in a folder."""
    served = Served(folder / "run" / "agent.sock")
    note = served.lines.append
    access = Access("ssh-agent", InMemory(gateway), pin=pin, notify=note)
    identities = Identities(keys, certificates, note)
    agent = SSHAgent(access, identities, wait_seconds=wait_seconds, log=note)
    with listen(served.path, log=note) as listener:
        thread = threading.Thread(target=listener.serve, args=(agent.serve,))
        thread.start()
        try:
            yield served
        finally:
            listener.stop()
            thread.join(SECONDS)


def login(
    session_id: bytes, public_key: bytes, *, host_key: bytes = b"", user: str = "ada"
) -> bytes:
    """Return what a client signs to log in."""
    bound = "-hostbound-v00@openssh.com" if host_key else ""
    return (
        string(session_id)
        + b"\x32"
        + string(user)
        + string("ssh-connection")
        + string(f"publickey{bound}")
        + b"\x01"
        + string("ssh-ed25519")
        + string(public_key)
        + (string(host_key) if host_key else b"")
    )


def file_signature(namespace: str) -> bytes:
    """Return what ``ssh-keygen -Y sign`` has signed."""
    return (
        b"SSHSIG"
        + string(namespace)
        + string(b"")
        + string("sha512")
        + string(bytes(64))
    )


def certificate(authority: bytes, public_key: bytes, kind: int = 1) -> bytes:
    """Return what ``ssh-keygen -s`` has signed, for an Ed25519 key."""
    return (
        string("ssh-ed25519-cert-v01@openssh.com")
        + string(bytes(32))
        + string(public_key[-32:])
        + bytes(8)
        + uint32(kind)
        + string("ada's laptop")
        + string(string("ada"))
        + bytes(8)
        + b"\xff" * 8
        + string(b"")
        + string(b"")
        + string(b"")
        + string(authority)
    )
