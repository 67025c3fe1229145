# SPDX-License-Identifier: MIT
"""ML-KEM."""

from __future__ import annotations

import ctypes
from typing import Final

from hsm_core._internal.crypto.der import subject_public_key_info
from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core._internal.crypto.libcrypto.evp import (
    Buffer,
    EVPKey,
    operation,
    ossl_parameters,
)
from hsm_core._internal.crypto.parameters import check_encapsulation
from hsm_core.algorithms import spec

_RANDOM_BYTES: Final = 32


class KEMPublicHandle(BaseHandle):
    """
    An encapsulation key, which was checked when it was loaded.

    Standard:
        FIPS 203, section 7.2.
    """

    def __init__(self, key: EVPKey, raw_public: bytes) -> None:
        super().__init__(key.algorithm)
        self._key = key
        self._public_der = subject_public_key_info(key.algorithm, raw_public)

    def public_der(self) -> bytes:
        """Return SubjectPublicKeyInfo (RFC 9935)."""
        return self._public_der

    def encapsulate(self) -> tuple[bytes, bytes]:
        """Return a fresh shared secret of 32 bytes and its encapsulation."""
        return self._encapsulate()

    def _encapsulate(self, **settings: bytes) -> tuple[bytes, bytes]:
        row = spec(self._algorithm)
        library = self._key.library
        functions = library.functions
        with (
            operation(self._key) as context,
            Buffer(library, row.shared_secret_bytes) as secret,
            Buffer(library, row.ciphertext_bytes) as wrapped,
        ):
            begun = functions.EVP_PKEY_encapsulate_init(
                context, ossl_parameters(**settings)
            )
            library.check(begun, "EVP_PKEY_encapsulate_init")
            made = functions.EVP_PKEY_encapsulate(
                context,
                *(wrapped.memory, ctypes.byref(wrapped.size)),
                *(secret.memory, ctypes.byref(secret.size)),
            )
            library.check(made, "EVP_PKEY_encapsulate")
            return secret.taken(), wrapped.taken()


class KEMPrivateHandle(KEMPublicHandle):
    """
    A decapsulation key with its encapsulation key.

    Standard:
        FIPS 203, section 7.3.
    """

    def decapsulate(self, ciphertext: bytes, /) -> bytes:
        """Return the shared secret; a changed encapsulation gives another."""
        check_encapsulation(self._algorithm, ciphertext)
        row = spec(self._algorithm)
        library = self._key.library
        functions = library.functions
        with (
            operation(self._key) as context,
            Buffer(library, row.shared_secret_bytes) as secret,
        ):
            begun = functions.EVP_PKEY_decapsulate_init(context, None)
            library.check(begun, "EVP_PKEY_decapsulate_init")
            made = functions.EVP_PKEY_decapsulate(
                context,
                *(secret.memory, ctypes.byref(secret.size)),
                *(ciphertext, len(ciphertext)),
            )
            library.check(made, "EVP_PKEY_decapsulate")
            return secret.taken()


def encapsulate_from(handle: KEMPublicHandle, message: bytes) -> tuple[bytes, bytes]:
    """
    Return shared secret and encapsulation of a chosen *message*, for known answers.

    Raises:
        ValueError: *message* is not 32 bytes long.

    Standard:
        FIPS 203, algorithm 17, whose input m it is.
    """
    if len(message) != _RANDOM_BYTES:
        raise ValueError(f"Expected {_RANDOM_BYTES} bytes, got {len(message)}.")
    return handle._encapsulate(ikme=message)  # noqa: SLF001
