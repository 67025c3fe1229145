# SPDX-License-Identifier: MIT
"""Data that an agent is asked to sign: its kinds, and the tag that each one needs."""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from hsm_cli.interfaces.ssh_agent.certificates import (
    Certificate,
    is_certificate_type,
    read_certificate,
)
from hsm_cli.interfaces.ssh_agent.encoding import MalformedError, SSHReader

_SIGNATURE_MAGIC: Final = b"SSHSIG"
_HASHES: Final = {"sha256": 32, "sha512": 64}
_HOST_PROOF: Final = b"hostkeys-prove-00@openssh.com"
_USERAUTH_REQUEST: Final = 50
_METHODS: Final = {"publickey": False, "publickey-hostbound-v00@openssh.com": True}
_EXCHANGE_HASHES: Final = frozenset({32, 48, 64})
"""Bytes of an exchange hash: SHA-256, SHA-384, SHA-512."""


class Login(msgspec.Struct, frozen=True):
    """
    Authentication of a user to a server (RFC 4252, section 7).

    Attributes:
        public_key: Key or certificate that logs in.
        host_key: Key of the server, where the client states it; else empty.
    """

    tag = "ssh-login"

    session_id: bytes
    user: str
    public_key: bytes
    host_key: bytes = b""

    def __str__(self) -> str:
        """Return a description for the user."""
        return f"login as {self.user}"


class FileSignature(msgspec.Struct, frozen=True):
    """Signature of a file or a commit (PROTOCOL.sshsig)."""

    namespace: str

    @property
    def tag(self) -> str:
        """Tag of keys that may sign this."""
        return f"ssh-sign:{self.namespace}"

    def __str__(self) -> str:
        """Return a description for the user."""
        return f"signature in the namespace {self.namespace}"


class Certification(msgspec.Struct, frozen=True):
    """Certificate to be issued."""

    certificate: Certificate

    @property
    def tag(self) -> str:
        """Tag of keys that may sign this."""
        return f"ssh-ca:{self.certificate.kind.name.lower()}"

    def __str__(self) -> str:
        """Return a description for the user."""
        found = self.certificate
        names = ", ".join(found.principals) or "any principal"
        return (
            f"{found.kind.name.lower()} certificate {found.key_id!r} for {names}, "
            f"serial {found.serial}"
        )


class HostProof(msgspec.Struct, frozen=True):
    """
    Proof of a server that it has its host key.

    Attributes:
        public_key: The host key, or empty for a key exchange, which does not state it.
    """

    tag = "ssh-host"

    public_key: bytes = b""

    def __str__(self) -> str:
        """Return a description for the user."""
        return "proof of a host key" if self.public_key else "key exchange as a host"


Signed: TypeAlias = Login | FileSignature | Certification | HostProof
"""Kinds of data that an agent signs."""


def parse_signed(data: bytes) -> Signed:
    """
    Return the kind of data that is to be signed.

    The formats can't be confused: their first bytes or lengths differ. A file signature
    can be as long as an exchange hash, so its first bytes are compared before lengths.

    Raises:
        MalformedError: It is of no kind that an agent signs.
    """
    reader = SSHReader(data)
    if data.startswith(_SIGNATURE_MAGIC):
        reader.take(len(_SIGNATURE_MAGIC))
        return _file_signature(reader)
    if len(data) in _EXCHANGE_HASHES:
        return HostProof()
    first = reader.string()
    if first == _HOST_PROOF:
        reader.string()  # session ID
        found = HostProof(reader.string())
        reader.end()
        return found
    if is_certificate_type(first.decode(errors="replace")):
        reader = SSHReader(data)
        certificate = read_certificate(reader)
        reader.end()
        return Certification(certificate)
    return _login(first, reader)


def _file_signature(reader: SSHReader) -> FileSignature:
    namespace, _reserved = reader.text(), reader.string()
    hash_name, digest = reader.text(), reader.string()
    reader.end()
    if not namespace or _HASHES.get(hash_name) != len(digest):
        raise MalformedError
    return FileSignature(namespace)


def _login(session_id: bytes, reader: SSHReader) -> Login:
    if reader.byte() != _USERAUTH_REQUEST:
        raise MalformedError
    user, service, method = reader.text(), reader.string(), reader.text()
    is_hostbound = _METHODS.get(method)
    if service != b"ssh-connection" or is_hostbound is None or not reader.boolean():
        raise MalformedError
    reader.string()  # signature algorithm
    public_key = reader.string()
    host_key = reader.string() if is_hostbound else b""
    reader.end()
    return Login(session_id, user, public_key, host_key)
