# SPDX-License-Identifier: MIT
"""ML-DSA and SLH-DSA."""

from __future__ import annotations

import ctypes

from hsm_core._internal.crypto.der import subject_public_key_info
from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core._internal.crypto.libcrypto.evp import (
    Buffer,
    EVPKey,
    Parameter,
    operation,
    ossl_parameters,
)
from hsm_core._internal.crypto.parameters import check_signing, check_verifying
from hsm_core.algorithms import spec
from hsm_core.errors import SignatureMismatchError
from hsm_core.protocols import SignatureParameters


class LibcryptoSignaturePublicHandle(BaseHandle):
    """
    A public key of ML-DSA or SLH-DSA.

    Standard:
        FIPS 204, algorithm 3; FIPS 205, algorithm 24.
    """

    def __init__(self, key: EVPKey, raw_public: bytes) -> None:
        super().__init__(key.algorithm)
        self._key = key
        self._public_der = subject_public_key_info(key.algorithm, raw_public)

    def public_der(self) -> bytes:
        """Return SubjectPublicKeyInfo (RFC 9881, RFC 9909)."""
        return self._public_der

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """Check a signature over a message, or over mu."""
        check_verifying(self._algorithm, data, parameters)
        if len(signature) != spec(self._algorithm).signature_bytes:
            raise SignatureMismatchError
        library = self._key.library
        functions = library.functions
        chosen = library.signature(self._algorithm)
        with operation(self._key) as context:
            begun = functions.EVP_PKEY_verify_message_init(
                context, chosen, _settings(parameters)
            )
            library.check(begun, "EVP_PKEY_verify_message_init")
            result: int = functions.EVP_PKEY_verify(
                context, signature, len(signature), data, len(data)
            )
        if result != 1:
            library.forget_errors()
            raise SignatureMismatchError


class LibcryptoSignaturePrivateHandle(LibcryptoSignaturePublicHandle):
    """
    A key pair of ML-DSA or SLH-DSA.

    Standard:
        FIPS 204, algorithm 2; FIPS 205, algorithm 22.
    """

    def sign(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """Return a hedged signature: each is another."""
        return self._sign(data, parameters, deterministic=False)

    def _sign(
        self, data: bytes, parameters: SignatureParameters, *, deterministic: bool
    ) -> bytes:
        check_signing(self._algorithm, data, parameters)
        library = self._key.library
        functions = library.functions
        chosen = library.signature(self._algorithm)
        size = spec(self._algorithm).signature_bytes
        with operation(self._key) as context, Buffer(library, size) as buffer:
            begun = functions.EVP_PKEY_sign_message_init(
                context, chosen, _settings(parameters, deterministic=int(deterministic))
            )
            library.check(begun, "EVP_PKEY_sign_message_init")
            made = functions.EVP_PKEY_sign(
                context, buffer.memory, ctypes.byref(buffer.size), data, len(data)
            )
            library.check(made, "EVP_PKEY_sign")
            return buffer.taken()


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


def _settings(chosen: SignatureParameters, **more: int) -> ctypes.Array[Parameter]:
    """Return a call's OSSL_PARAMs; what is not given has its default."""
    values: dict[str, bytes | int] = dict(more)
    if chosen.context:
        values["context_string"] = chosen.context
    if chosen.external_mu:
        values["mu"] = 1
    return ossl_parameters(**values)
