# SPDX-License-Identifier: MIT
"""Approvers' signatures: OpenSSH and raw forms, verified against the policy's keys."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from hsm_core._internal.policy.in_force import PolicyHolder
from hsm_core.approver_keys import (
    ECDSA_P256,
    ED25519,
    ApproverKey,
    ApproverKeys,
    read_approver_key,
)
from hsm_core.consent import SSH_NAMESPACE, statement
from hsm_core.errors import (
    AuditTamperedError,
    InputSizeError,
    InvalidInputError,
    MalformedError,
    SignatureMismatchError,
)
from hsm_core.identities import identity
from hsm_core.model import AuditEvent

MAX_SIGNATURE_BYTES: Final = 4096
"""Maximum length of a signature, in characters."""

_ARMOUR: Final = re.compile(
    rb"-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n]+)\n"
    rb"-----END SSH SIGNATURE-----\n?"
)

_HASHES: Final = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
_ED25519_BYTES: Final = 64

SignatureCheck: TypeAlias = Callable[[str, bytes, bytes, str], str]
"""
Verifies an approver's signature, given principal, statement, signature and key name.

Returns the fingerprint of the verifying key, or raises an `HSMError`.
"""

CONSENT_DIGEST: Final = "shown_sha256"
"""Parameter that holds the digest of the operation as shown to an approver."""

_TEXT: Final = re.compile(r"(SHA256:[A-Za-z0-9+/]{43}) ([A-Za-z0-9+/]+={0,2})")
_IS_GRANT: Final = {"Approve": True, "Deny": False}
_REASON: Final = "approval_signature"


class SSHData:
    """
    Bytes that are read from front to end.

    Every method raises `MalformedError` where the data is not what it should be.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """Return so many bytes."""
        part = self._data[self._at : self._at + count]
        if len(part) != count:
            raise MalformedError("The signature is truncated.")
        self._at += count
        return part

    def number(self) -> int:
        """Return an unsigned integer of 4 bytes."""
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        """Return bytes that follow their length."""
        return self.take(self.number())

    def positive(self) -> int:
        """Return a positive integer in its shortest form."""
        data = self.string()
        value = int.from_bytes(data, "big")
        if value == 0 or len(data) != value.bit_length() // 8 + 1:
            raise MalformedError(
                "The signature holds a number that is not in canonical form."
            )
        return value

    def end(self) -> None:
        """Check that nothing is left."""
        if self._at != len(self._data):
            raise MalformedError("The signature has trailing bytes.")


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


def signature_check(policy: PolicyHolder) -> SignatureCheck:
    """Return a check against the keys that the policy in force names for a person."""

    def check(principal: str, statement: bytes, signature: bytes, signer: str) -> str:
        keys = [
            key
            for key in _keys_of(policy, principal)
            if signer in {"", key.fingerprint}
        ]
        if not keys:
            raise InvalidInputError(
                "signature: the policy registers no such key for you.",
                field="signature",
            )
        return verify_consent(signature, statement, keys).fingerprint

    return check


def _keys_of(policy: PolicyHolder, principal: str) -> list[ApproverKey]:
    texts = policy.engine.policy.approver_keys.get(identity(principal), ())
    return list(map(read_approver_key, texts))


def consent_text(signer: str, signature: bytes) -> str:
    """Return what the audit log keeps of a signature: key and signature."""
    return f"{signer} {base64.b64encode(signature).decode()}"


class ConsentAudit:
    """
    Checks every signed consent of an audit log.

    Args:
        keys: Of everybody who has ever signed one.
    """

    def __init__(self, keys: ApproverKeys) -> None:
        self._keys = keys
        self._seen: set[tuple[str, str]] = set()

    @property
    def checked(self) -> int:
        """How many signatures were checked; intent and outcome have the same one."""
        return len(self._seen)

    def look(self, event: AuditEvent) -> None:
        """
        Check the signatures of one record; the record itself was checked before.

        Raises:
            AuditTamperedError: A signature is malformed, or was not made by a key of
                the approver. ``facts`` name ``seq`` and ``reason``.
        """
        if not event.approval_signatures:
            return
        if event.kind not in _IS_GRANT or event.caller is None:
            raise _wrong(event, "the record is not a decision")
        keys = self._keys.get(identity(event.caller.principal), ())
        for text in event.approval_signatures:
            self._check(event, keys, text)
            self._seen.add((event.approval_id, text))

    def _check(
        self, event: AuditEvent, keys: tuple[ApproverKey, ...], text: str
    ) -> None:
        parts = _TEXT.fullmatch(text)
        if parts is None:
            raise _wrong(event, "malformed")
        signers = [key for key in keys if key.fingerprint == parts[1]]
        if not signers:
            raise _wrong(event, f"key {parts[1]} is not registered for this approver")
        digest = str(event.parameters.get(CONSENT_DIGEST, ""))
        granted = _IS_GRANT[event.kind]
        try:
            message = statement(event.approval_id, digest, granted=granted)
            signature = base64.b64decode(parts[2], validate=True)
            verify_consent(signature, message, signers)
        except (binascii.Error, InvalidInputError, SignatureMismatchError):
            raise _wrong(event, "it does not verify over this approval") from None


def _wrong(event: AuditEvent, why: str) -> AuditTamperedError:
    return AuditTamperedError(
        f"Audit record {event.seq} holds an invalid approver signature: {why}.",
        seq=event.seq,
        reason=_REASON,
    )
