# SPDX-License-Identifier: MIT
"""Certificates of OpenSSH (PROTOCOL.certkeys): to be signed, and of our keys."""

from __future__ import annotations

import base64
import binascii
import time
from enum import IntEnum
from pathlib import Path
from typing import Final

import msgspec

from hsm_cli.interfaces.ssh_agent.encoding import MalformedError, SSHReader, string
from hsm_core.errors import ConfigurationError, InvalidInputError

_MAX_BYTES: Final = 64 * 1024

_FIELDS: Final = {
    "ssh-ed25519-cert-v01@openssh.com": ("ssh-ed25519", 1),
    "ecdsa-sha2-nistp256-cert-v01@openssh.com": ("ecdsa-sha2-nistp256", 2),
    "ecdsa-sha2-nistp384-cert-v01@openssh.com": ("ecdsa-sha2-nistp384", 2),
    "ecdsa-sha2-nistp521-cert-v01@openssh.com": ("ecdsa-sha2-nistp521", 2),
    "ssh-rsa-cert-v01@openssh.com": ("ssh-rsa", 2),
    "rsa-sha2-256-cert-v01@openssh.com": ("ssh-rsa", 2),
    "rsa-sha2-512-cert-v01@openssh.com": ("ssh-rsa", 2),
    "sk-ssh-ed25519-cert-v01@openssh.com": ("sk-ssh-ed25519@openssh.com", 2),
    "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com": (
        "sk-ecdsa-sha2-nistp256@openssh.com",
        3,
    ),
}
"""Plain type and number of fields of the certified key, by type of certificate."""


class Kind(IntEnum):
    """Kind of a certificate."""

    USER = 1
    HOST = 2


class Certificate(msgspec.Struct, frozen=True):
    """
    Certificate, or the part of it that its authority signs.

    Attributes:
        public_key: The certified key, plain.
        authority: Public key of the authority.
    """

    kind: Kind
    public_key: bytes
    authority: bytes
    serial: int
    key_id: str
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int

    @property
    def is_current(self) -> bool:
        """Whether it is valid now."""
        return self.valid_after <= time.time() < self.valid_before


def is_certificate_type(name: str) -> bool:
    """Return whether a type is one that `read_certificate` reads."""
    return name in _FIELDS


def read_certificate(reader: SSHReader) -> Certificate:
    """
    Read a certificate up to its signature.

    Raises:
        MalformedError: It is none, or of an unknown type or kind.
    """
    try:
        plain, fields = _FIELDS[reader.text()]
    except KeyError:
        raise MalformedError from None
    reader.string()  # nonce
    key = [reader.string() for _ in range(fields)]
    serial, kind, key_id = reader.uint64(), reader.uint32(), reader.string()
    principals = reader.strings()
    valid_after, valid_before = reader.uint64(), reader.uint64()
    for _ in range(3):  # critical options, extensions, reserved
        reader.string()
    if kind not in set(Kind):
        raise MalformedError
    return Certificate(
        kind=Kind(kind),
        public_key=string(plain) + b"".join(map(string, key)),
        authority=reader.string(),
        serial=serial,
        key_id=key_id.decode(errors="backslashreplace"),
        principals=tuple(name.decode(errors="backslashreplace") for name in principals),
        valid_after=valid_after,
        valid_before=valid_before,
    )


def certified_key(blob: bytes) -> bytes:
    """Return the plain key of a certificate; anything else is returned as it is."""
    try:
        return read_certificate(SSHReader(blob)).public_key
    except MalformedError:
        return blob


def read_certificate_file(path: Path) -> tuple[bytes, Certificate]:
    """
    Read the certificate of a file that ``ssh-keygen -s`` wrote.

    Returns:
        The certificate as bytes and as fields.

    Raises:
        ConfigurationError: The file can't be read.
        InvalidInputError: It holds no certificate of a user.
    """
    try:
        with path.open("rb") as file:
            words = file.read(_MAX_BYTES).split(maxsplit=2)
    except OSError as error:
        raise ConfigurationError(
            f"{path} can't be read ({error.strerror}).", field="certificate"
        ) from None
    try:
        blob = base64.b64decode(words[1], validate=True)
        reader = SSHReader(blob)
        found = read_certificate(reader)
        reader.string()
        reader.end()
    except (IndexError, binascii.Error, MalformedError):
        raise InvalidInputError(
            f"{path} is not an OpenSSH certificate.", field="certificate"
        ) from None
    if found.kind is not Kind.USER:
        raise InvalidInputError(
            f"{path} is a host certificate. sshd reads it itself (HostCertificate).",
            field="certificate",
        )
    return blob, found
