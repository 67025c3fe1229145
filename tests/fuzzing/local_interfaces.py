# SPDX-License-Identifier: MIT
"""What local programs send: requests to the SSH agent, data to be signed, files."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from hsm_cli.interfaces.access import Access
from hsm_cli.interfaces.sockets import Peer, Stream, StreamEndedError
from hsm_cli.interfaces.ssh_agent.agent import SSHAgent
from hsm_cli.interfaces.ssh_agent.certificates import read_certificate_file
from hsm_cli.interfaces.ssh_agent.encoding import MalformedError, string, uint32
from hsm_cli.interfaces.ssh_agent.identities import Identities
from hsm_cli.interfaces.ssh_agent.requests import parse_signed
from hsm_core.session import Session
from hsm_core.testing import caller, memory_hsm
from tests.cli.ssh_client import (
    FAILURE,
    Host,
    InMemory,
    certificate,
    file_signature,
    login,
)
from tests.core.hsm_support import WRAP, wrap_for
from tests.fuzzing.stored_forms import NothingReadError
from tests.fuzzing.target import Target, own_folder

_OTHER = string("ssh-ed25519") + string(bytes(32))
_RUNS_OF_AN_HSM: Final = 5000
"""Inputs after which the HSM is replaced, as its audit log is in memory."""


def targets() -> list[Target]:
    """Return a target for each form."""
    return [_agent_frames(), _signed_data(), _certificate_file()]


def answers(sent: bytes, serve: Callable[[Stream], None]) -> bytes:
    """Return what a program is answered that sends bytes and leaves."""
    with tempfile.TemporaryFile() as incoming, tempfile.TemporaryFile() as outgoing:
        incoming.write(sent)
        incoming.seek(0)
        peer = Peer(0, 0, "fuzzer")
        with suppress(StreamEndedError):
            serve(Stream(incoming.fileno(), outgoing.fileno(), peer))
        outgoing.seek(0)
        return outgoing.read()


def _discard(line: str) -> None:
    """Keep no line of a log."""


class _Served:
    """Agent over an HSM in memory, into which a key is imported."""

    def __init__(self, material: bytes) -> None:
        self._gateway = memory_hsm()
        session = Session(self._gateway.act_as(caller()))
        carrier = session.create_key("ML-KEM-768", usages=WRAP).key_id
        session.import_key(
            *("Ed25519", carrier, wrap_for(session, carrier, material)),
            name="key",
            tags=["ssh-login", "ssh-sign:git"],
        )
        access = Access("ssh-agent", InMemory(self._gateway), notify=_discard)
        identities = Identities((), (), _discard)
        self.agent = SSHAgent(access, identities, wait_seconds=0, log=_discard)
        (offered,) = identities.read(self._gateway.act_as(caller()))
        self.blob = offered.blob

    def close(self) -> None:
        """Close the HSM."""
        self._gateway.close()


class _Reader:
    def __init__(self) -> None:
        self._material = Ed25519PrivateKey.generate().private_bytes(
            Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
        )
        self._served = _Served(self._material)
        self._runs = 0

    @property
    def blob(self) -> bytes:
        """Public key that the agent offers."""
        return self._served.blob

    def __call__(self, data: bytes) -> None:
        if self._runs == _RUNS_OF_AN_HSM:
            self._served.close()
            self._served, self._runs = _Served(self._material), 0
        self._runs += 1
        if not answers(data, self._served.agent.serve).replace(string(FAILURE), b""):
            raise NothingReadError


def _agent_frames() -> Target:
    reader = _Reader()
    blob = reader.blob

    def request(data: bytes) -> bytes:
        return string(b"\x0d" + string(blob) + string(data) + uint32(0))

    bound = string(Host().binding(b"session")) + request(login(b"session", blob))
    return Target(
        name="ssh-agent",
        readers=(reader,),
        seeds=[
            string(b"\x0b"),
            string(b"\x1b" + string("query")),
            request(file_signature("git")),
            request(login(b"session", blob)),
            bound,
        ],
        refusals=(NothingReadError,),
    )


def _signed_data() -> Target:
    return Target(
        name="ssh-signed-data",
        readers=(lambda data: str(parse_signed(data)),),
        seeds=[
            bytes(32),
            login(b"session", _OTHER),
            login(b"session", _OTHER, host_key=_OTHER),
            file_signature("git"),
            certificate(_OTHER, _OTHER),
            string("hostkeys-prove-00@openssh.com") + string(b"") + string(_OTHER),
        ],
        refusals=(MalformedError,),
    )


def _certificate_file() -> Target:
    path = own_folder() / "key-cert.pub"
    kind = b"ssh-ed25519-cert-v01@openssh.com "

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return read_certificate_file(path)

    def wrapped(data: bytes) -> object:
        return read(kind + base64.b64encode(data))

    whole = certificate(_OTHER, _OTHER) + string(b"")
    return Target(
        name="ssh-certificate",
        readers=(read, wrapped),
        seeds=[kind + base64.b64encode(whole), whole],
    )
