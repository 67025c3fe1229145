# SPDX-License-Identifier: MIT
"""Root key of the hierarchy, held in memory."""

from __future__ import annotations

from typing import Final

from hsm_core._internal.keyring.sealing import KEY_BYTES, open_sealed, seal
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.errors import ConfigurationError, WrongMasterKeyError
from hsm_core.protocols import Entropy, MasterKeySource

_START: Final = b"FHRT\x01"
_LABEL: Final = b"hsm-core/root-seal/1"


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
