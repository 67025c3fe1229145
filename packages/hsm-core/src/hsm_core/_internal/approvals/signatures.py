# SPDX-License-Identifier: MIT
"""
Signatures by which approvers consent, and the keys that they sign with.

One key has one form, one signature has one form, and nothing may follow it.

Standard:
    RFC 8032 (Ed25519); FIPS 186-5, section 6 (ECDSA); RFC 5480 and RFC 8410 (public
    keys); RFC 4251, section 5 and RFC 5656, section 3 (keys and signatures of SSH);
    PROTOCOL.sshsig of OpenSSH.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from hsm_core._internal.approvals.ssh_data import SSHData
from hsm_core.consent import SSH_NAMESPACE
from hsm_core.errors import (
    InputSizeError,
    InvalidInputError,
    MalformedError,
    SignatureMismatchError,
)

__all__ = ["MAX_SIGNATURE_BYTES", "ApproverKey", "read_approver_key", "verify_consent"]

MAX_SIGNATURE_BYTES: Final = 4096
"""Longest signature that is looked at."""

_PEM: Final = re.compile(
    r"-----BEGIN PUBLIC KEY-----\r?\n[A-Za-z0-9+/=\r\n]+-----END PUBLIC KEY-----\s*"
)
_LINE: Final = re.compile(r"([a-z0-9@.-]+) ([A-Za-z0-9+/]+={0,2})(?: [^\r\n]*)?\n?")
_ARMOUR: Final = re.compile(
    rb"-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n]+)\n"
    rb"-----END SSH SIGNATURE-----\n?"
)
_ED25519: Final = "ssh-ed25519"
_P256: Final = "ecdsa-sha2-nistp256"
_HASHES: Final = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
_ED25519_BYTES: Final = 64
_MAX_KEY_CHARACTERS: Final = 4096

_PublicKey: TypeAlias = Ed25519PublicKey | EllipticCurvePublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproverKey:
    """
    A public key that somebody signs their consent with.

    Attributes:
        kind: ``ssh-ed25519`` or ``ecdsa-sha2-nistp256``.
        blob: The key in the form of SSH (RFC 4253, section 6.6).
    """

    kind: str
    blob: bytes
    public_key: _PublicKey = field(repr=False, compare=False)

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
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise InvalidInputError(
        "An approver's key must be Ed25519 or ECDSA P-256, as PEM (PUBLIC KEY) or as a "
        "line of OpenSSH (ssh-ed25519 or ecdsa-sha2-nistp256, without options).",
        field="approvers",
    ) from None


def _read_pem(text: str) -> ApproverKey | None:
    if not _PEM.fullmatch(text):
        return None
    key = serialization.load_pem_public_key(text.encode())
    found = _known(key)
    if found is None:
        return None
    # What isn't the one encoding of a key could be another one to another reader.
    written = "".join(text.split("-----")[2].split())
    return found if base64.b64decode(written) == _spki(found.public_key) else None


def _spki(key: _PublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _read_line(text: str) -> ApproverKey | None:
    words = _LINE.fullmatch(text)
    if words is None or words[1] not in {_ED25519, _P256}:
        return None
    key = serialization.load_ssh_public_key(f"{words[1]} {words[2]}".encode())
    found = _known(key)
    if found is None or found.kind != words[1]:
        return None
    return found if base64.b64encode(found.blob).decode() == words[2] else None


def _known(key: object) -> ApproverKey | None:
    match key:
        case Ed25519PublicKey():
            kind = _ED25519
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            kind = _P256
        case _:
            return None
    line = key.public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    blob = base64.b64decode(line.split()[1])
    return ApproverKey(kind=kind, blob=blob, public_key=key)


def verify_consent(
    signature: bytes, message: bytes, keys: Iterable[ApproverKey]
) -> ApproverKey:
    """
    Return the key that has signed a message; whatever is not sure is an error.

    Args:
        signature: 64 bytes (Ed25519), DER (P-256), or an armoured signature of
            ``ssh-keygen -Y sign -n ferrohsm-approval``.

        message: `hsm_core.consent.statement`.

        keys: Of one person.

    Raises:
        InputSizeError: *signature* is empty or longer than `MAX_SIGNATURE_BYTES`.
        MalformedError: It looks like a signature of SSH, and is not in its form.
        SignatureMismatchError: None of *keys* has made it over *message*.
    """
    if not 0 < len(signature) <= MAX_SIGNATURE_BYTES:
        raise InputSizeError(
            "signature", actual=len(signature), minimum=1, maximum=MAX_SIGNATURE_BYTES
        )
    blob = b""
    if signature.startswith(b"-----"):
        blob, signature, message = _read_ssh(signature, message)
    for key in keys:
        if (not blob or key.blob == blob) and _is_good(key, signature, message):
            return key
    raise SignatureMismatchError(
        "The signature is not one of this person's registered keys over this approval."
    )


def _is_good(key: ApproverKey, signature: bytes, message: bytes) -> bool:
    try:
        if isinstance(key.public_key, Ed25519PublicKey):
            if len(signature) != _ED25519_BYTES:
                return False
            key.public_key.verify(signature, message)
        else:
            if encode_dss_signature(*decode_dss_signature(signature)) != signature:
                return False
            key.public_key.verify(signature, message, ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def _read_ssh(armoured: bytes, message: bytes) -> tuple[bytes, bytes, bytes]:
    """Return key, bare signature and what was signed, of a signature of SSH."""
    found = _ARMOUR.fullmatch(armoured)
    if found is None:
        raise MalformedError("The signature is not an armoured one of SSH.")
    text = found[1].replace(b"\n", b"")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise MalformedError("The signature is not base64.") from None
    if base64.b64encode(data) != text:
        raise MalformedError("The signature is not canonical base64.")
    return _read_sshsig(data, message)


def _read_sshsig(data: bytes, message: bytes) -> tuple[bytes, bytes, bytes]:
    reader = SSHData(data)
    if reader.take(6) != b"SSHSIG" or reader.number() != 1:
        raise MalformedError("The signature is not SSHSIG of version 1.")
    blob, namespace, reserved = reader.string(), reader.string(), reader.string()
    hash_name, inner = reader.string(), reader.string()
    reader.end()
    if namespace != SSH_NAMESPACE.encode() or reserved:
        raise MalformedError(f"The signature's namespace must be {SSH_NAMESPACE}.")
    if hash_name not in _HASHES:
        raise MalformedError("The signature's hash must be sha256 or sha512.")
    digest = _HASHES[hash_name](message).digest()
    signed = b"SSHSIG" + b"".join(
        len(part).to_bytes(4, "big") + part
        for part in (namespace, reserved, hash_name, digest)
    )
    kind = SSHData(blob).string()
    return blob, _bare(kind, inner), signed


def _bare(kind: bytes, inner: bytes) -> bytes:
    """Return what SSH calls a signature in the form that others give it."""
    reader = SSHData(inner)
    if reader.string() != kind:
        raise MalformedError("The signature is not of its key's kind.")
    data = reader.string()
    reader.end()
    if kind == _ED25519.encode():
        return data
    if kind != _P256.encode():
        raise MalformedError(f"A signature must be {_ED25519} or {_P256}.")
    numbers = SSHData(data)
    r, s = numbers.positive(), numbers.positive()
    numbers.end()
    return encode_dss_signature(r, s)
