# SPDX-License-Identifier: MIT
"""Sealing: AES-256-GCM under derived keys, and the root key in memory."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hsm_core._internal.lib.encoding import hkdf_sha256, length_prefixed
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.errors import ConfigurationError, SelfTestFailedError, WrongMasterKeyError
from hsm_core.protocols import Entropy, MasterKeySource

KEY_BYTES: Final = 32
"""Length of every key of the hierarchy."""

_SALT_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_START: Final = b"FHRT\x01"
_LABEL: Final = b"hsm-core/root-seal/1"


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
                f"The master key must be {KEY_BYTES} bytes, got {len(key)}."
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
            label=_LABEL,
            start=_START,
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
        if blob.startswith(_START):
            plaintext = open_sealed(
                self._key, blob, label=_LABEL, start_bytes=len(_START), bound=context
            )
        if plaintext is None:
            raise WrongMasterKeyError
        return plaintext
