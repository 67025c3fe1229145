# SPDX-License-Identifier: MIT
"""
Approver keys: public keys that verify approval signatures, and their files.

One key has one form in PEM and one as a line of OpenSSH; every other form is refused.

Standard:
    RFC 5480 and RFC 8410 (PEM); RFC 4253, section 6.6, RFC 5656, section 3.1 and
    RFC 8709, section 4 (OpenSSH).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hsm_core.errors import InvalidInputError
from hsm_core.identities import identity

__all__ = [
    "ECDSA_P256",
    "ED25519",
    "ApproverKey",
    "ApproverKeys",
    "read_approver_key",
    "read_approver_keys",
    "read_key_lines",
]

ED25519: Final = "ssh-ed25519"
ECDSA_P256: Final = "ecdsa-sha2-nistp256"
_PEM: Final = re.compile(
    r"-----BEGIN PUBLIC KEY-----\r?\n[A-Za-z0-9+/=\r\n]+-----END PUBLIC KEY-----\s*"
)
_LINE: Final = re.compile(r"([a-z0-9@.-]+) ([A-Za-z0-9+/]+={0,2})(?: [^\r\n]*)?\n?")
_PERSON: Final = re.compile(r'(?:"([^"]+)"|([^\s"]+))\s+(\S.*)')
_MAX_KEY_CHARACTERS: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproverKey:
    """
    Public key of an approver.

    Attributes:
        kind: ``ssh-ed25519`` or ``ecdsa-sha2-nistp256``.
        blob: The key in the form of SSH (RFC 4253, section 6.6).
        public_key: The same, as ``cryptography`` has it.
    """

    kind: str
    blob: bytes
    public_key: object = field(repr=False, compare=False)

    @property
    def fingerprint(self) -> str:
        """``SHA256:`` and the hash of *blob*, as OpenSSH writes it."""
        digest = hashlib.sha256(self.blob).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def read_approver_key(text: str) -> ApproverKey:
    """
    Read a public key: PEM (SubjectPublicKeyInfo), or one line as OpenSSH writes it.

    Raises:
        InvalidInputError: It is neither, or of another kind than Ed25519 and P-256.
    """
    try:
        if len(text) <= _MAX_KEY_CHARACTERS and text.isascii():
            key = _read_pem(text) if text.startswith("-----") else _read_line(text)
            if key is not None:
                return key
    except (ValueError, UnsupportedAlgorithm, NotImplementedError):
        # The last is what cryptography says of a point that is compressed.
        pass
    raise InvalidInputError(
        "An approver's key must be Ed25519 or ECDSA P-256, as PEM (PUBLIC KEY) or as "
        "an OpenSSH line (ssh-ed25519 or ecdsa-sha2-nistp256, without options).",
        field="approvers",
    ) from None


def _read_pem(text: str) -> ApproverKey | None:
    if not _PEM.fullmatch(text):
        return None
    key = serialization.load_pem_public_key(text.encode())
    found = _known(key)
    if found is None:
        return None
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    # What isn't the one encoding of a key could be another one to another reader.
    written = "".join(text.split("-----")[2].split())
    return found if written == base64.b64encode(der).decode() else None


def _read_line(text: str) -> ApproverKey | None:
    words = _LINE.fullmatch(text)
    if words is None or words[1] not in {ED25519, ECDSA_P256}:
        return None
    key = serialization.load_ssh_public_key(f"{words[1]} {words[2]}".encode())
    found = _known(key)
    if found is None or found.kind != words[1]:
        return None
    return found if base64.b64encode(found.blob).decode() == words[2] else None


def _known(key: object) -> ApproverKey | None:
    match key:
        case Ed25519PublicKey():
            kind = ED25519
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            kind = ECDSA_P256
        case _:
            return None
    line = key.public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    blob = base64.b64decode(line.split()[1])
    return ApproverKey(kind=kind, blob=blob, public_key=key)


ApproverKeys: TypeAlias = Mapping[str, tuple[ApproverKey, ...]]
"""Approver keys, by `hsm_core.identities.identity` of the principal."""


def read_approver_keys(texts: Mapping[str, tuple[str, ...]]) -> ApproverKeys:
    """
    Read the keys of all approvers.

    Args:
        texts: Keys as `read_approver_key` takes them, by principal.

    Raises:
        InvalidInputError: One is no such key, or two people have the same.
    """
    found: dict[str, tuple[ApproverKey, ...]] = {}
    owners: dict[bytes, str] = {}
    for principal, keys in texts.items():
        person = identity(principal)
        read = tuple(map(read_approver_key, keys))
        found[person] = (*found.get(person, ()), *read)
        for key in read:
            if owners.setdefault(key.blob, person) != person:
                raise InvalidInputError(
                    f"Key {key.fingerprint} is registered for two people. Register "
                    "each key once.",
                    field="approvers",
                )
    return found


def read_key_lines(text: str) -> ApproverKeys:
    """
    Read a file of lines, each with a principal and a key as OpenSSH writes it.

    A principal with spaces stands in quotation marks. Empty lines, and those that begin
    with ``#``, are left out.

    Raises:
        InvalidInputError: A line is neither; the message names its number.
    """
    found: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = _PERSON.fullmatch(line.strip())
        if words is None:
            raise InvalidInputError(f"Line {number}: no key found.", field="approvers")
        person = identity(words[1] or words[2])
        try:
            read_approver_key(words[3])
        except InvalidInputError as error:
            raise InvalidInputError(f"Line {number}: {error}", **error.facts) from None
        found[person] = (*found.get(person, ()), words[3])
    return read_approver_keys(found)
