# SPDX-License-Identifier: MIT
"""
Signatures by which approvers consent.

A signature has one form, and nothing may follow it.

Standard:
    RFC 8032 (Ed25519); FIPS 186-5, section 6 (ECDSA); RFC 5656, section 3.1.2 and
    RFC 8709, section 6 (signatures of SSH); PROTOCOL.sshsig of OpenSSH.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from hsm_core._internal.approvals.ssh_data import SSHData
from hsm_core.approver_keys import ECDSA_P256, ED25519, ApproverKey
from hsm_core.consent import SSH_NAMESPACE
from hsm_core.errors import (
    InputSizeError,
    MalformedError,
    SignatureMismatchError,
)

MAX_SIGNATURE_BYTES: Final = 4096
"""Maximum length of a signature, in characters."""

_ARMOUR: Final = re.compile(
    rb"-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n]+)\n"
    rb"-----END SSH SIGNATURE-----\n?"
)
_HASHES: Final = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
_ED25519_BYTES: Final = 64


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
        "The signature does not verify with a registered key of this approver."
    )


def _is_good(key: ApproverKey, signature: bytes, message: bytes) -> bool:
    try:
        match key.public_key:
            case Ed25519PublicKey() as public:
                if len(signature) != _ED25519_BYTES:
                    return False
                public.verify(signature, message)
            case EllipticCurvePublicKey() as public:
                if encode_dss_signature(*decode_dss_signature(signature)) != signature:
                    return False
                public.verify(signature, message, ECDSA(hashes.SHA256()))
            case _:
                return False
    except (InvalidSignature, ValueError):
        return False
    return True


def _read_ssh(armoured: bytes, message: bytes) -> tuple[bytes, bytes, bytes]:
    """Return key, bare signature and what was signed, of a signature of SSH."""
    found = _ARMOUR.fullmatch(armoured)
    if found is None:
        raise MalformedError("signature must be an armored SSH signature.")
    text = found[1].replace(b"\n", b"")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise MalformedError("signature must be base64.") from None
    if base64.b64encode(data) != text:
        raise MalformedError("signature must be canonical base64.")
    return _read_sshsig(data, message)


def _read_sshsig(data: bytes, message: bytes) -> tuple[bytes, bytes, bytes]:
    reader = SSHData(data)
    if reader.take(6) != b"SSHSIG" or reader.number() != 1:
        raise MalformedError("signature must be SSHSIG version 1.")
    blob, namespace, reserved = reader.string(), reader.string(), reader.string()
    hash_name, inner = reader.string(), reader.string()
    reader.end()
    if namespace != SSH_NAMESPACE.encode() or reserved:
        raise MalformedError(f"The signature namespace must be {SSH_NAMESPACE}.")
    if hash_name not in _HASHES:
        raise MalformedError("The signature hash must be sha256 or sha512.")
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
        raise MalformedError("The signature type does not match its key type.")
    data = reader.string()
    reader.end()
    if kind == ED25519.encode():
        return data
    if kind != ECDSA_P256.encode():
        raise MalformedError(f"The signature type must be {ED25519} or {ECDSA_P256}.")
    numbers = SSHData(data)
    r, s = numbers.positive(), numbers.positive()
    numbers.end()
    return encode_dss_signature(r, s)
