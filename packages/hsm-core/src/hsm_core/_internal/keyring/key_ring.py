# SPDX-License-Identifier: MIT
"""
Key ring: KEKs by id, and one integrity secret from which the rest is derived.

A key-encryption key (KEK) seals the material of key versions. Under the integrity
secret stand, with one HKDF label each: the MACs of key documents, use counters,
approvals and of the store's account, ids of repeatable operations, digests of payloads
and of what approvals bind, and the digests over all keys and all approvals.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hsm_core._internal.lib.encoding import (
    hkdf_sha256,
    length_prefixed,
    mac_function,
    made_by_newer,
)
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.errors import (
    ApprovalTamperedError,
    ConfigurationError,
    KeyRingTamperedError,
    KeyTamperedError,
    SelfTestFailedError,
    WrongMasterKeyError,
)
from hsm_core.protocols import Entropy, MasterKeySource

KEY_BYTES: Final = 32
"""Length of every key of the hierarchy."""

_SALT_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_ROOT_START: Final = b"FHRT\x01"
_ROOT_LABEL: Final = b"hsm-core/root-seal/1"
_FORMAT: Final = 1
_KEK_ID_BYTES: Final = 8
_CHECKSUM_BYTES: Final = 32
_LENGTH_BYTES: Final = 4
_RING_START: Final = b"FHKR\x01"
_BLOB_START: Final = b"FHKB\x01"
_APPROVAL_START: Final = b"FHKA\x01"
_SHARED_START: Final = b"FHKN\x01"
_RING_CONTEXT: Final = b"hsm-core/key-ring/1"
_CHECK_CONTEXT: Final = b"hsm-core/key-check/1"
_CHECK_TEXT: Final = b"key check value"
_BLOB_LABEL: Final = b"hsm-core/blob-seal/1"
_DOCUMENT_LABEL: Final = b"hsm-core/document-mac/1"
_OPERATION_LABEL: Final = b"hsm-core/operation-id/1"
_PAYLOAD_LABEL: Final = b"hsm-core/payload-digest/1"
_SET_LABEL: Final = b"hsm-core/set-digest/1"
_COUNTER_LABEL: Final = b"hsm-core/use-counter/1"
_APPROVAL_LABEL: Final = b"hsm-core/approval-mac/1"
_APPROVAL_DIGEST_LABEL: Final = b"hsm-core/approval-digest/1"
_APPROVAL_SET_LABEL: Final = b"hsm-core/approval-set/1"
_CREDENTIAL_LABEL: Final = b"hsm-core/credential-key/1"
_APPROVAL_SEAL_LABEL: Final = b"hsm-core/approval-seal/1"
_SHARED_LABEL: Final = b"hsm-core/shared-seal/1"
_BUCKET_LABEL: Final = b"hsm-core/store-bucket/1"
_ACCOUNT_LABEL: Final = b"hsm-core/store-account/1"
_CLUSTER_LABEL: Final = b"hsm-core/cluster-state/1"
_JUMPS_LABEL: Final = b"hsm-core/clock-leaps/1"
_RETENTION_LABEL: Final = b"hsm-core/retention-state/1"
_MARK_LABEL: Final = b"hsm-core/last-seen-mark/1"
_KEY_ID_CHARACTERS: Final = 36
_DIGEST_CHARACTERS: Final = 64
_NUMBER_BYTES: Final = 8
_LENGTHS: Final = tuple(
    length.to_bytes(8, "big")
    for length in (_KEY_ID_CHARACTERS, _NUMBER_BYTES, _DIGEST_CHARACTERS)
)

_Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]

_KEKId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]

_HexId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]

_ENCODER: Final = msgspec.msgpack.Encoder(order="deterministic")


def seal(
    key: bytes,
    data: bytes,
    *,
    label: bytes,
    start: bytes,
    bound: bytes,
    entropy: Entropy,
) -> bytes:
    """
    Return *start* ‖ salt (32 bytes) ‖ nonce (12) ‖ ciphertext ‖ tag (16).

    Args:
        key: 32 bytes, from which the sealing key is derived with HKDF-SHA-256.

        data: What to seal.

        label: Domain of this kind of blob.

        start: First bytes of the blob: magic, format and what finds the key.

        bound: What else the tag covers; it is not stored.

        entropy: Source of salt and nonce.

    Raises:
        SelfTestFailedError: The result can't be opened again; nothing is returned.
    """
    drawn = entropy.random_bytes(_SALT_BYTES + _NONCE_BYTES)
    salt, nonce = drawn[:_SALT_BYTES], drawn[_SALT_BYTES:]
    header = start + drawn
    sealer = AESGCM(hkdf_sha256(key, salt=salt, info=label))
    blob = header + sealer.encrypt(nonce, data, length_prefixed(label, header, bound))
    # A fault that appears after the self-test must not cost the only copy of a key.
    if open_sealed(key, blob, label=label, start_bytes=len(start), bound=bound) != data:
        raise SelfTestFailedError(
            "AES-256-GCM failed its check: sealed data could not be opened again."
        )
    return blob


def open_sealed(
    key: bytes, blob: bytes, *, label: bytes, start_bytes: int, bound: bytes
) -> bytes | None:
    """Return the input of `seal`, or None if the blob is invalid."""
    middle = start_bytes + _SALT_BYTES
    end = middle + _NONCE_BYTES
    if len(blob) < end:
        return None
    header, salt, nonce = blob[:end], blob[start_bytes:middle], blob[middle:end]
    opener = AESGCM(hkdf_sha256(key, salt=salt, info=label))
    try:
        return opener.decrypt(nonce, blob[end:], length_prefixed(label, header, bound))
    except InvalidTag:
        return None


class RootKey(MasterKeySource):
    """
    Root key in memory.

    Args:
        key: 32 bytes.

        entropy: Source of salts and nonces; the operating system's by default.

    Raises:
        ConfigurationError: *key* has another length.
    """

    __slots__ = ("_entropy", "_key")

    def __init__(self, key: bytes, *, entropy: Entropy | None = None) -> None:
        if len(key) != KEY_BYTES:
            raise ConfigurationError(
                f"master_key must be {KEY_BYTES} bytes, got {len(key)}."
            )
        self._key = bytes(key)
        self._entropy = entropy or SystemEntropy()

    def __repr__(self) -> str:
        return "<RootKey>"

    def seal(self, plaintext: bytes, context: bytes, /) -> bytes:
        """
        Return *plaintext* encrypted with AES-256-GCM and bound to *context*.

        The result is 65 bytes longer, and another one at every call.
        """
        return seal(
            self._key,
            plaintext,
            label=_ROOT_LABEL,
            start=_ROOT_START,
            bound=context,
            entropy=self._entropy,
        )

    def open(self, blob: bytes, context: bytes, /) -> bytes:
        """
        Return what `seal` was given.

        Raises:
            WrongMasterKeyError: Another root sealed it, for another context, or it
                was changed.
        """
        plaintext = None
        if blob.startswith(_ROOT_START):
            plaintext = open_sealed(
                self._key,
                blob,
                label=_ROOT_LABEL,
                start_bytes=len(_ROOT_START),
                bound=context,
            )
        if plaintext is None:
            raise WrongMasterKeyError
        return plaintext


class BlobContext(msgspec.Struct, frozen=True, kw_only=True):
    """Context that a sealed blob is bound to: it opens in no other."""

    key_id: str
    version: int
    material_id: str
    algorithm: str
    usages: tuple[str, ...]


class _Contents(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    store_id: _HexId
    log_id: _HexId
    current_kek: _KEKId
    keks: dict[_KEKId, _Key]
    integrity_secret: _Key

    def __repr__(self) -> str:
        return "<key ring contents>"


_DECODER: Final = msgspec.msgpack.Decoder(_Contents)


class KeyRing:
    """
    Keys of one store, and the values derived from them.

    Create one with `create` or `open`. Thread-safe and immutable.

    Attributes:
        document_mac: HMAC-SHA-256 over a key document, 32 bytes.
        account_mac: The same over what was counted of the store.
        cluster_mac: The same over the state of a cluster.
        jumps_mac: The same over clock jumps.
        retention_mac: The same over what retention remembers.
        mark_mac: The same over what a node has seen of its cluster.
    """

    def __init__(self, contents: _Contents) -> None:
        self._contents = contents
        self.document_mac = self._mac(_DOCUMENT_LABEL)
        self._operation_mac = self._mac(_OPERATION_LABEL)
        self._payload_mac = self._mac(_PAYLOAD_LABEL)
        self._set_mac = self._mac(_SET_LABEL)
        self._counter_mac = self._mac(_COUNTER_LABEL)
        self._approval_mac = self._mac(_APPROVAL_LABEL)
        self._approval_digest_mac = self._mac(_APPROVAL_DIGEST_LABEL)
        self._approval_set_mac = self._mac(_APPROVAL_SET_LABEL)
        self._credential_mac = self._mac(_CREDENTIAL_LABEL)
        self._bucket_mac = self._mac(_BUCKET_LABEL)
        self.account_mac = self._mac(_ACCOUNT_LABEL)
        self.cluster_mac = self._mac(_CLUSTER_LABEL)
        self.jumps_mac = self._mac(_JUMPS_LABEL)
        self.retention_mac = self._mac(_RETENTION_LABEL)
        self.mark_mac = self._mac(_MARK_LABEL)

    def __repr__(self) -> str:
        return f"<KeyRing of store {self.store_id}>"

    def _mac(self, label: bytes) -> Callable[[bytes], bytes]:
        secret = self._contents.integrity_secret
        return mac_function(hkdf_sha256(secret, salt=b"", info=label))

    @classmethod
    def create(cls, entropy: Entropy, *, log_id: str) -> KeyRing:
        """
        Create the key ring of a new store.

        Args:
            entropy: Source of every key and id.

            log_id: Identifier of the audit log that the store belongs to, 32 hex
                digits.
        """
        kek_id = entropy.random_bytes(_KEK_ID_BYTES).hex()
        return cls(
            _Contents(
                format=_FORMAT,
                store_id=uuid.UUID(bytes=entropy.random_bytes(16), version=4).hex,
                log_id=log_id,
                current_kek=kek_id,
                keks={kek_id: entropy.random_bytes(KEY_BYTES)},
                integrity_secret=entropy.random_bytes(KEY_BYTES),
            )
        )

    def seal(self, source: MasterKeySource) -> bytes:
        """
        Return the key ring sealed by the root key.

        A key check value, a fixed text sealed by the same root, stands before it.
        """
        check = source.seal(_CHECK_TEXT, _CHECK_CONTEXT)
        sealed = source.seal(_ENCODER.encode(self._contents), _RING_CONTEXT)
        body = _RING_START + len(check).to_bytes(_LENGTH_BYTES, "big") + check + sealed
        return body + hashlib.sha256(body).digest()

    @classmethod
    def open(cls, source: MasterKeySource, blob: bytes) -> KeyRing:
        """
        Open the output of `seal`.

        Raises:
            WrongMasterKeyError: The ring is whole, but another root sealed it.
            KeyRingTamperedError: The ring is damaged.
            ConfigurationError: A newer release wrote it.
        """
        check, sealed = _split_ring(blob)
        text = _try_open(source, check, _CHECK_CONTEXT)
        payload = _try_open(source, sealed, _RING_CONTEXT)
        if text is None and payload is None:
            raise WrongMasterKeyError
        if text != _CHECK_TEXT or payload is None:
            raise KeyRingTamperedError
        try:
            contents = _DECODER.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise KeyRingTamperedError from None
        if contents.format != _FORMAT or contents.current_kek not in contents.keks:
            raise KeyRingTamperedError
        return cls(contents)

    @property
    def store_id(self) -> str:
        """Random identifier of the store, 32 hex digits."""
        return self._contents.store_id

    @property
    def log_id(self) -> str:
        """Identifier of the audit log that the store belongs to, 32 hex digits."""
        return self._contents.log_id

    @property
    def kek_id(self) -> str:
        """Identifier of the KEK that seals new blobs, 16 hex digits."""
        return self._contents.current_kek

    def operation_id(self, principal: str, idempotency_key: str) -> str:
        """Return the id of a repeatable operation, 32 hex digits."""
        named = length_prefixed(_utf8(principal), _utf8(idempotency_key))
        return self._operation_mac(named)[:16].hex()

    def payload_digest(self, data: bytes) -> str:
        """Return the keyed digest of a payload, for the audit log: 64 hex digits."""
        return self._payload_mac(data).hex()

    def set_element(self, key_id: str, generation: int, document_digest: str) -> int:
        """
        Return one key's part of the set digest, a number below 2²⁵⁶.

        Parts are added modulo 2²⁵⁶, so that a change costs two of them and not all.
        """
        number = generation.to_bytes(_NUMBER_BYTES, "big")
        usual = len(key_id), len(document_digest), document_digest.isascii()
        if usual == (_KEY_ID_CHARACTERS, _DIGEST_CHARACTERS, True):
            # The same bytes as below; a start needs them of every key of a store.
            first, second, third = _LENGTHS
            key, digest = key_id.encode(), document_digest.encode()
            named = b"%b%b%b%b%b%b" % (first, key, second, number, third, digest)
        else:
            named = length_prefixed(_utf8(key_id), number, _utf8(document_digest))
        return int.from_bytes(self._set_mac(named), "big")

    def bucket_part(self, bucket: int, value: int) -> int:
        """Return what a bucket with this sum adds to the second sum of the account."""
        named = bucket.to_bytes(4, "big") + value.to_bytes(32, "big")
        return int.from_bytes(self._bucket_mac(named), "big")

    def counter_mac(self, material_id: str, counts: bytes) -> bytes:
        """Return the MAC of a material's use counter, 32 bytes."""
        return self._counter_mac(
            length_prefixed(_utf8(self.store_id), _utf8(material_id), counts)
        )

    def approval_mac(self, payload: bytes) -> bytes:
        """Return the MAC of an approval of this store, 32 bytes."""
        return self._approval_mac(length_prefixed(_utf8(self.store_id), payload))

    def approval_digest(self, *parts: bytes) -> str:
        """Return the keyed digest that an approval binds, of its parts: hex."""
        return self._approval_digest_mac(length_prefixed(*parts)).hex()

    def credential_mark(self, name: str) -> str:
        """Return the keyed digest of the name of a key that vouches: hex."""
        named = length_prefixed(_utf8(self.store_id), _utf8(name))
        return self._credential_mac(named).hex()

    def approval_element(self, approval_id: str, generation: int, sha256: str) -> int:
        """Return one approval's part of the digest over all, a number below 2²⁵⁶."""
        number = generation.to_bytes(_NUMBER_BYTES, "big")
        named = length_prefixed(_utf8(approval_id), number, _utf8(sha256))
        return int.from_bytes(self._approval_set_mac(named), "big")

    def seal_approval(
        self, data: bytes, *, approval_id: str, entropy: Entropy
    ) -> bytes:
        """Return *data* sealed under the current KEK for one approval."""
        bound = self._bind_approval(approval_id)
        return self._seal(_APPROVAL_START, _APPROVAL_SEAL_LABEL, data, bound, entropy)

    def open_approval(self, blob: bytes, *, approval_id: str) -> bytes:
        """
        Return the input of `seal_approval`.

        Raises:
            ApprovalTamperedError: It was altered, or belongs to another approval.
        """
        bound = self._bind_approval(approval_id)
        data = self._open(_APPROVAL_START, _APPROVAL_SEAL_LABEL, blob, bound)
        if data is None:
            raise ApprovalTamperedError(
                _flaw(f"The approval {approval_id}", blob, _APPROVAL_START),
                approval_id=approval_id,
            )
        return data

    def seal_shared(
        self, data: bytes, *, kind: str, name: str, entropy: Entropy
    ) -> bytes:
        """Return *data* sealed under the current KEK for one name that nodes share."""
        bound = self._bind_shared(kind, name)
        return self._seal(_SHARED_START, _SHARED_LABEL, data, bound, entropy)

    def open_shared(self, blob: bytes, *, kind: str, name: str) -> bytes | None:
        """Return the input of `seal_shared`; None if it was altered."""
        bound = self._bind_shared(kind, name)
        return self._open(_SHARED_START, _SHARED_LABEL, blob, bound)

    def seal_material(
        self, material: bytes, *, context: BlobContext, entropy: Entropy
    ) -> bytes:
        """
        Return *material* sealed under the current KEK and bound to *context*.

        The result is 73 bytes longer.
        """
        bound = self._bind(context)
        return self._seal(_BLOB_START, _BLOB_LABEL, material, bound, entropy)

    def open_material(self, blob: bytes, *, context: BlobContext) -> bytes:
        """
        Return the input of `seal_material`.

        Raises:
            KeyTamperedError: The blob was changed, or belongs to another store, key,
                version, material, algorithm or set of usages.
        """
        bound = self._bind(context)
        material = self._open(_BLOB_START, _BLOB_LABEL, blob, bound)
        if material is None:
            what = f"Version {context.version} of key {context.key_id}"
            newer = _newer(blob, _BLOB_START)
            facts = {"format": newer} if newer else {}
            raise KeyTamperedError(
                _flaw(what, blob, _BLOB_START),
                key_id=context.key_id,
                version=context.version,
                **facts,
            )
        return material

    def _seal(
        self, start: bytes, label: bytes, data: bytes, bound: bytes, entropy: Entropy
    ) -> bytes:
        """Seal under the current KEK, whose id follows the start of the blob."""
        kek_id = self._contents.current_kek
        return seal(
            self._contents.keks[kek_id],
            data,
            label=label,
            start=start + bytes.fromhex(kek_id),
            bound=bound,
            entropy=entropy,
        )

    def _open(
        self, start: bytes, label: bytes, blob: bytes, bound: bytes
    ) -> bytes | None:
        """Open with the KEK that the blob names; None if it is not as it was sealed."""
        end = len(start) + _KEK_ID_BYTES
        kek = self._contents.keks.get(blob[len(start) : end].hex())
        if kek is None or not blob.startswith(start):
            return None
        return open_sealed(kek, blob, label=label, start_bytes=end, bound=bound)

    def _bind_approval(self, approval_id: str) -> bytes:
        return length_prefixed(_utf8(self.store_id), _utf8(approval_id))

    def _bind_shared(self, kind: str, name: str) -> bytes:
        return length_prefixed(_utf8(self.store_id), _utf8(kind), _utf8(name))

    def _bind(self, context: BlobContext) -> bytes:
        return length_prefixed(
            _utf8(self.store_id),
            _utf8(context.key_id),
            context.version.to_bytes(8, "big"),
            _utf8(context.material_id),
            _utf8(context.algorithm),
            length_prefixed(*map(_utf8, context.usages)),
        )


def _utf8(text: str) -> bytes:
    # A lone surrogate, from an undecodable argument, must not be an exception here.
    return text.encode("utf-8", "surrogatepass")


def _flaw(what: str, blob: bytes, start: bytes) -> str:
    """Return the fault of a blob that can't be opened."""
    newer = _newer(blob, start)
    if newer:
        return made_by_newer(what, newer, start[-1])
    return f"{what} was tampered with."


def _newer(blob: bytes, start: bytes) -> int:
    """Return the format of a blob that a newer release has written, or 0."""
    magic, known = start[:-1], start[-1]
    is_ours = len(blob) > len(start) and blob.startswith(magic)
    return blob[len(magic)] if is_ours and blob[len(magic)] > known else 0


def _try_open(source: MasterKeySource, blob: bytes, context: bytes) -> bytes | None:
    try:
        return source.open(blob, context)
    except WrongMasterKeyError:
        return None


def _split_ring(blob: bytes) -> tuple[bytes, bytes]:
    # The checksum guards nothing against a forger. It tells accidental damage from a
    # wrong root, which AES-GCM alone can't.
    body, checksum = blob[:-_CHECKSUM_BYTES], blob[-_CHECKSUM_BYTES:]
    start = len(_RING_START) + _LENGTH_BYTES
    magic, number = _RING_START[:-1], _RING_START[-1]
    if hashlib.sha256(body).digest() != checksum or not body.startswith(magic):
        raise KeyRingTamperedError
    found = body[len(magic)] if len(body) >= start else 0
    if found > number:
        raise ConfigurationError(made_by_newer("The key ring", found, number))
    if found != number:
        raise KeyRingTamperedError
    middle = start + int.from_bytes(body[len(_RING_START) : start], "big")
    return body[start:middle], body[middle:]
