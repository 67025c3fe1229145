# SPDX-License-Identifier: MIT
"""Operations of libcrypto without fresh randomness, which known answers need."""

from __future__ import annotations

from typing import Final

from hsm_core._internal.crypto.libcrypto.provider import (
    KEMPublicHandle,
    LibcryptoSignaturePrivateHandle,
)
from hsm_core.protocols import SignatureParameters

_RANDOM_BYTES: Final = 32


def sign_deterministic(
    handle: LibcryptoSignaturePrivateHandle,
    data: bytes,
    parameters: SignatureParameters,
) -> bytes:
    """
    Return the signature of the deterministic variant, for known answers only.

    Standard:
        FIPS 204, section 3.4; FIPS 205, section 9.2.
    """
    return handle._sign(data, parameters, deterministic=True)  # noqa: SLF001


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
