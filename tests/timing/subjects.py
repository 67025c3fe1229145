# SPDX-License-Identifier: MIT
"""
What is measured: an operation, and two classes of inputs that nobody may tell apart.

For what is compared with a secret, the first class is wrong in its first byte, the
second in one of its last alone. For a key encapsulation, the first was made for the
key and the second is rejected, implicitly.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hsm_core import operations as ops
from hsm_core import primitives
from hsm_core._internal.approvals.states import reserved
from hsm_core._internal.audit.keys import record_mac_function
from hsm_core._internal.audit.record import RecordCodec
from hsm_core._internal.crypto.registry import CryptoRegistry, default_registry
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.algorithms import Algorithm
from hsm_core.errors import HSMError
from hsm_core.model import ApprovalState
from hsm_core.protocols import KeyHandle
from hsm_core.testing import caller, memory_hsm
from hsm_server.config.settings import ConsoleSettings, TokenRules
from hsm_server.identity.sessions import Sessions
from hsm_server.identity.token_keys import TokenTrust
from hsm_server.identity.token_verifier import TokenVerifier
from tests.core.approval_support import approval_of

_MESSAGE: Final = b"a message, as long as most are. " * 2
_NOW: Final = 1_750_000_000
_LATE: Final = -4
_SENT: Final = 256
_chance: Final = random.Random()
_RECORDED: Final = 100_000
"""Operations that a trail in memory may hold; each is a record of it."""


@dataclass(frozen=True)
class Subject:
    """
    One operation.

    Attributes:
        call: Does it; a refusal is part of it.
        make: Makes an input of the first class, 0, or the second, 1. It does the same
            for both, so that memory, caches and branches are alike before the call.
        most: How often it may be done with what one `Subject` holds.
    """

    call: Callable[[Any], object]
    make: Callable[[int], Any]
    most: int = 1_000_000_000


def _refusing(call: Callable[[Any], object]) -> Callable[[Any], object]:
    def refused(given: Any) -> None:
        try:
            call(given)
        except HSMError:
            return

    return refused


def _wrong(right: bytes, place: int) -> bytes:
    """Return other bytes, wrong at one place in one of 255 ways."""
    found = bytearray(right)
    found[place] ^= _chance.randrange(1, 256)
    return bytes(found)


def _both(right: bytes, dress: Callable[[bytes], Any]) -> Callable[[int], Any]:
    """
    Return what makes an input that is wrong early, or late.

    The last bytes are right in both: of a text in base64, they make the only character
    that has not all values.
    """

    def make(which: int) -> Any:
        found = (_wrong(right, 0), _wrong(right, _LATE))
        return dress(_copy(found[which]))

    return make


def _copy(octets: bytes) -> bytes:
    """Return the same bytes in another place, whichever was made last."""
    return bytes(bytearray(octets))


def _naive(secret: bytes, given: bytes) -> bool:
    return all(a == b for a, b in zip(secret, given, strict=True))


def control() -> Subject:
    """Compare byte by byte up to the first that differs, which must be seen."""
    secret = secrets.token_bytes(32)
    return Subject(lambda given: _naive(secret, given), _both(secret, bytes))


def mac() -> Subject:
    """Verify a MAC with a key in hand."""
    key = secrets.token_bytes(32)
    right = primitives.mac(Algorithm.HMAC_SHA_256, key, _MESSAGE)

    def verify(given: bytes) -> None:
        primitives.verify_mac(Algorithm.HMAC_SHA_256, key, _MESSAGE, given)

    return Subject(_refusing(verify), _both(right, bytes))


def mac_operation() -> Subject:
    """Verify a MAC as the vault does, with policy and trail."""
    hsm = memory_hsm().act_as(caller())
    hsm.execute(ops.CreateKey(algorithm=Algorithm.HMAC_SHA_256, name="mac"))
    right = hsm.execute(ops.ComputeMac(key_id="mac", message=_MESSAGE)).mac

    def dress(given: bytes) -> ops.VerifyMac:
        return ops.VerifyMac(key_id="mac", message=_MESSAGE, mac=given)

    return Subject(_refusing(hsm.execute), _both(right, dress), _RECORDED)


def aead() -> Subject:
    """Open what AES-256-GCM has sealed."""
    handle = _key(Algorithm.AES_256_GCM)
    nonce = secrets.token_bytes(12)
    sealed = handle.seal(nonce, _MESSAGE, b"")
    text, tag = sealed[:-16], sealed[-16:]
    return Subject(
        _refusing(lambda given: handle.open(nonce, given, b"")),
        _both(tag, lambda given: text + given),
    )


def approval_digest() -> Subject:
    """Reserve an approval for an operation that it may not be for."""
    right = secrets.token_bytes(32)
    approval = approval_of(1, digest=right.hex(), state=ApprovalState.GRANTED)
    operation = uuid.uuid4().hex
    return Subject(
        _refusing(lambda given: reserved(approval, operation, given, "ann")),
        _both(right, bytes.hex),
    )


def ticket() -> Subject:
    """Look for a session by its ticket."""
    sessions = Sessions(ConsoleSettings(), lambda: _NOW)
    right = sessions.begin("ada", "", "")
    octets = base64.urlsafe_b64decode(right + "=")

    def dress(given: bytes) -> str:
        return base64.urlsafe_b64encode(given).rstrip(b"=").decode()

    return Subject(
        _refusing(lambda given: sessions.find(given, "")), _both(octets, dress)
    )


def token() -> Subject:
    """Verify the signature of a bearer token."""
    secret = secrets.token_bytes(32)
    verifier = TokenVerifier(TokenTrust.of_secret(secret, TokenRules()), lambda: _NOW)
    claims = {"sub": "ada", "roles": ["operator"], "iat": _NOW, "exp": _NOW + 60}
    parts = ({"alg": "HS256", "typ": "JWT"}, claims)
    signed = ".".join(_base64url(json.dumps(part).encode()) for part in parts)
    right = hmac.digest(secret, signed.encode(), hashlib.sha256)
    verifier.verify(f"{signed}.{_base64url(right)}")
    return Subject(
        _refusing(verifier.verify),
        _both(right, lambda given: f"{signed}.{_base64url(given)}"),
    )


def audit_record() -> Subject:
    """Verify the MAC of a record of the trail."""
    key, log_id = secrets.token_bytes(32), secrets.token_hex(16)
    head = b'{"format":2,"seq":"%016x","prev":"%064x","time":"%016d"' % (7, 1, 5)
    payload = head + b',"kind":"Sign","request_id":"ada"'
    right = record_mac_function(key, log_id)(payload)
    return Subject(
        RecordCodec(log_id, key).is_record,
        _both(right, lambda given: b'%b,"mac":"%b"}' % (payload, given.hex().encode())),
    )


def approval_id() -> Subject:
    """Ask for an approval that is not there, by an id like one that is."""
    hsm = memory_hsm().act_as(caller())
    right = uuid.uuid4().bytes

    def dress(given: bytes) -> ops.GetApproval:
        return ops.GetApproval(approval_id=str(uuid.UUID(bytes=given)))

    return Subject(_refusing(hsm.execute), _both(right, dress), _RECORDED)


def decapsulation(algorithm: Algorithm, rejected: int) -> Callable[[], Subject]:
    """
    Return what makes the subject of a KEM.

    Args:
        algorithm: Of the key.

        rejected: A byte of the ciphertext of ML-KEM.
    """

    def made() -> Subject:
        handle = _key(algorithm)
        sent = [handle.encapsulate()[1] for _ in range(_SENT)]

        def make(which: int) -> bytes:
            good = _chance.choice(sent)
            return _copy((good, _wrong(good, rejected))[which])

        return Subject(handle.decapsulate, make)

    return made


_registry: list[CryptoRegistry] = []


def _key(algorithm: Algorithm) -> KeyHandle:
    """Return a new key."""
    if not _registry:
        _registry.append(default_registry(SystemEntropy()))
    registry = _registry[0]
    return registry.load(algorithm, registry.generate(algorithm).material)


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


CONTROL: Final = "a comparison that stops early"

SUBJECTS: Final[dict[str, Callable[[], Subject]]] = {
    CONTROL: control,
    "MAC": mac,
    "MAC, as an operation": mac_operation,
    "tag of AES-256-GCM": aead,
    "digest of an approval": approval_digest,
    "id of an approval": approval_id,
    "ticket of a session": ticket,
    "signature of a token": token,
    "MAC of a record": audit_record,
    "ML-KEM-768": decapsulation(Algorithm.ML_KEM_768, 7),
    "P-256 + ML-KEM-768": decapsulation(Algorithm.MLKEM768_ECDH_P256_SHA3_256, 7),
    "X25519 + ML-KEM-768": decapsulation(Algorithm.MLKEM768_X25519_SHA3_256, 7),
}
