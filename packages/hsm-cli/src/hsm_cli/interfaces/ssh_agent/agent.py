# SPDX-License-Identifier: MIT
"""Requests of the SSH agent protocol (RFC 9987)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from typing import Final

from hsm_cli.interfaces.access import Access, LocalProgram
from hsm_cli.interfaces.sockets import Stream, StreamEndedError, described
from hsm_cli.interfaces.ssh_agent.bindings import Bindings
from hsm_cli.interfaces.ssh_agent.certificates import certified_key
from hsm_cli.interfaces.ssh_agent.encoding import (
    MalformedError,
    SSHReader,
    string,
    uint32,
)
from hsm_cli.interfaces.ssh_agent.identities import Identities, OfferedKey
from hsm_cli.interfaces.ssh_agent.requests import (
    Certification,
    HostProof,
    Login,
    Signed,
    parse_signed,
)
from hsm_cli.interfaces.ssh_agent.signatures import encode_signature, format_of, signing
from hsm_client.waiting import ApprovalEndedError, ApprovalWait, execute_when_approved
from hsm_core.errors import AuthenticationError, HSMError
from hsm_core.protocols import HSM

MAX_FRAME_BYTES: Final = 256 * 1024
"""Longest request, as in OpenSSH."""

_LENGTH_BYTES: Final = 4
_MOST_SHOWN: Final = 200
"""Characters of the log for what a client, or a remote host, states."""

_SESSION_BIND: Final = "session-bind@openssh.com"
_QUERY: Final = "query"


class _Request(IntEnum):
    """Numbers of requests; all others fail."""

    IDENTITIES = 11
    SIGN = 13
    UNLOCK = 23
    EXTENSION = 27


_FAILURE: Final = bytes([5])
_SUCCESS: Final = bytes([6])
_IDENTITIES_ANSWER: Final = bytes([12])
_SIGN_RESPONSE: Final = bytes([14])
_EXTENSION_FAILURE: Final = bytes([28])
_EXTENSION_RESPONSE: Final = bytes([29])


class SSHAgent:
    """
    SSH agent over an HSM: lists keys and signs.

    It adds, removes and exports no keys. Refusals are logged with their reasons, which
    the protocol can't express.

    Args:
        access: The HSM, and who uses it. If it takes a PIN, the agent is locked until
            ``ssh-add -X`` gives it.

        identities: Keys that it offers.

        wait_seconds: Maximum wait for an approval.

        log: Gets a line for each signature. Refusals are notes of *access*.
    """

    def __init__(
        self,
        access: Access,
        identities: Identities,
        *,
        wait_seconds: float,
        log: Callable[[str], None],
    ) -> None:
        self.access = access
        self.identities = identities
        self.wait = ApprovalWait(seconds=wait_seconds)
        self._log = log
        self._lock = threading.Lock()
        self._is_unlocked = not access.takes_pin

    @property
    def is_unlocked(self) -> bool:
        """Whether no PIN is needed, or it was given."""
        return self._is_unlocked

    def unlock(self, pin: bytes) -> None:
        """
        Unlock the agent with the PIN of its credential.

        Raises:
            HSMError: The PIN is wrong, or no more PINs are accepted.
        """
        with self._lock:
            if not self._is_unlocked:
                self.access.log_in(pin)
                self._is_unlocked = True

    def log(self, text: str) -> None:
        """Write a line for the user."""
        self._log(f"ssh-agent: {text}")

    def serve(self, stream: Stream) -> None:
        """Serve one connection until it ends."""
        connection = _Connection(self, stream)
        while True:
            data = stream.arrived(_LENGTH_BYTES)
            length = int.from_bytes(data[:_LENGTH_BYTES], "big")
            if not 1 <= length <= MAX_FRAME_BYTES:
                raise StreamEndedError
            request = stream.completed(data, _LENGTH_BYTES + length)[_LENGTH_BYTES:]
            stream.write(string(connection.answer(request)))


class _Connection:
    """Requests of one program."""

    def __init__(self, agent: SSHAgent, stream: Stream) -> None:
        self._agent = agent
        self._stream = stream
        self._wait = replace(agent.wait, pause=self._pause)
        self._bindings = Bindings()
        self._program = LocalProgram(uid=stream.peer.uid, name=stream.peer.program)

    def answer(self, request: bytes) -> bytes:
        """Return the response to a request, both without their lengths."""
        reader = SSHReader(request)
        number = reader.byte()
        try:
            match number:
                case _Request.IDENTITIES:
                    return self._list()
                case _Request.SIGN:
                    return self._sign(reader)
                case _Request.UNLOCK:
                    return self._unlock(reader)
                case _Request.EXTENSION:
                    return self._extend(reader)
                case _:
                    return _FAILURE
        except ApprovalEndedError as error:
            return self._refusal(str(error))
        except (MalformedError, HSMError):  # access reports errors of the HSM
            return _FAILURE

    def _hsm(self) -> HSM:
        if not self._agent.is_unlocked:
            raise AuthenticationError("Unlock the agent with the PIN first.")
        return self._agent.access.hsm(self._program)

    def _list(self) -> bytes:
        if not self._agent.is_unlocked:
            return _IDENTITIES_ANSWER + uint32(0)
        keys = self._agent.identities.read(self._hsm())
        found = [key for key in keys if self._bindings.may_see(key.tags)]
        entries = (string(one.blob) + string(one.comment) for one in found)
        return _IDENTITIES_ANSWER + uint32(len(found)) + b"".join(entries)

    def _unlock(self, reader: SSHReader) -> bytes:
        if self._bindings.is_forwarded:  # a remote host could use up the tries
            return self._refusal("a PIN from a forwarded connection")
        self._agent.unlock(reader.string())
        return _SUCCESS

    def _sign(self, reader: SSHReader) -> bytes:
        blob, data, flags = reader.string(), reader.string(), reader.uint32()
        hsm = self._hsm()
        identity = self._agent.identities.find(hsm, blob)
        if identity is None:
            return self._refusal("a signature with a key that is not offered")
        try:
            signed = parse_signed(data)
        except MalformedError:
            return self._refusal("a signature of data in an unknown format", identity)
        what, objection = _cut(str(signed)), _objection(identity, signed)
        objection = objection or self._bindings.objection(signed, identity.tags)
        if objection:
            return self._refusal(f"{what}: {_cut(objection)}", identity)
        form = format_of(identity.algorithm, flags)
        if form is None:
            return self._refusal(f"{what}: the client asked for SHA-1", identity)
        operation = signing(identity.key_id, data, form)
        found = execute_when_approved(hsm, lambda: hsm.execute(operation), self._wait)
        if found.version != identity.version:
            self._agent.identities.forget()
            return self._refusal(f"{what}: the key was just rotated", identity)
        self._agent.log(f"{identity.comment}: {what}, for {self._peer}")
        return _SIGN_RESPONSE + string(encode_signature(form, found.signature))

    def _extend(self, reader: SSHReader) -> bytes:
        name = reader.text()
        if name == _QUERY:
            return _EXTENSION_RESPONSE + string(_QUERY) + string(_SESSION_BIND)
        if name != _SESSION_BIND:
            return _FAILURE
        if self._bindings.bind(reader):
            return _SUCCESS
        self._refusal("an invalid session binding")
        return _EXTENSION_FAILURE

    @property
    def _peer(self) -> str:
        forwarded = (
            " over a forwarded connection" if self._bindings.is_forwarded else ""
        )
        return f"{described(self._stream.peer)}{forwarded}"

    def _refusal(self, reason: str, identity: OfferedKey | None = None) -> bytes:
        key = f"{identity.comment}: " if identity else ""
        refused = f"{key}refused to {self._peer}: {reason}"
        self._agent.access.note(f"ssh-agent: {refused}")
        return _FAILURE

    def _pause(self, seconds: float) -> None:
        """Wait for an approval, as long as the program waits for us."""
        if self._stream.is_closed_within(seconds):
            raise StreamEndedError


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _objection(identity: OfferedKey, signed: Signed) -> str:
    """Return why a key may not sign this; empty if it may."""
    if signed.tag not in identity.tags:
        return f"the key has no tag {signed.tag}"
    match signed:
        case Login() if certified_key(signed.public_key) != identity.public_key:
            return "the login names another key"
        case Certification() if signed.certificate.authority != identity.public_key:
            return "the certificate names another CA"
        case HostProof() if signed.public_key not in {b"", identity.public_key}:
            return "the proof is for another host key"
        case _:
            return ""
