# SPDX-License-Identifier: MIT
"""
EVP objects that are surely freed, and parameters that live long enough.

An `EVPKey` is only read after it was made, so many threads may use one; each call works
in a context of its own. Every length is checked before a call: libcrypto takes an empty
seed for none and draws one itself.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from hsm_core._internal.crypto.libcrypto.library import Libcrypto, LibcryptoError
from hsm_core.algorithms import Algorithm, Family, spec

_INTEGER: Final = 1
_OCTET_STRING: Final = 5
_UNMODIFIED: Final = ctypes.c_size_t(-1).value


class Parameter(ctypes.Structure):
    """OSSL_PARAM; a field of type char* keeps the bytes that it points into."""

    _fields_ = (
        ("key", ctypes.c_char_p),
        ("data_type", ctypes.c_uint),
        ("data", ctypes.c_char_p),
        ("data_size", ctypes.c_size_t),
        ("return_size", ctypes.c_size_t),
    )


def ossl_parameters(**values: bytes | int) -> ctypes.Array[Parameter]:
    """Return OSSL_PARAMs; an underscore stands for a hyphen."""
    entries = []
    for name, value in values.items():
        kind, data = _OCTET_STRING, value
        if isinstance(data, int):
            kind, data = _INTEGER, data.to_bytes(4, sys.byteorder)
        key = name.replace("_", "-").encode()
        entries.append(Parameter(key, kind, data, len(data), _UNMODIFIED))
    return (Parameter * (len(entries) + 1))(*entries, Parameter())


class Buffer:
    """
    Memory for an answer of known length, overwritten when it is left.

    Args:
        library: What will write it.

        size: Length that the answer must have.
    """

    __slots__ = ("_library", "memory", "size")

    def __init__(self, library: Libcrypto, size: int) -> None:
        self._library = library
        self.memory = ctypes.create_string_buffer(size)
        self.size = ctypes.c_size_t(size)

    def __enter__(self) -> Buffer:
        return self

    def __exit__(self, *error: object) -> None:
        self._library.functions.OPENSSL_cleanse(self.memory, len(self.memory))

    def taken(self) -> bytes:
        """
        Return the answer.

        Raises:
            LibcryptoError: It is shorter than it must be.
        """
        if self.size.value != len(self.memory):
            raise LibcryptoError(
                f"Expected {len(self.memory)} bytes, got {self.size.value}."
            )
        return self.memory.raw


class EVPKey:
    """
    An EVP_PKEY, freed with the last reference to it.

    Attributes:
        library: Where it lives.
        algorithm: What it is a key of.
        pointer: Its address, for calls.
    """

    __slots__ = ("algorithm", "library", "pointer")

    def __init__(self, library: Libcrypto, algorithm: Algorithm, pointer: int) -> None:
        self.library = library
        self.algorithm = algorithm
        self.pointer = pointer

    def __del__(self) -> None:
        self.library.functions.EVP_PKEY_free(self.pointer)

    def public_bytes(self) -> bytes:
        """Return the raw public key."""
        size = spec(self.algorithm).public_bytes
        return self._raw(self.library.functions.EVP_PKEY_get_raw_public_key, size)

    def private_bytes(self, size: int) -> bytes:
        """Return the raw private key: expanded for ML-KEM and ML-DSA."""
        return self._raw(self.library.functions.EVP_PKEY_get_raw_private_key, size)

    def _raw(self, function: Callable[..., int], size: int) -> bytes:
        with Buffer(self.library, size) as buffer:
            result = function(self.pointer, buffer.memory, ctypes.byref(buffer.size))
            self.library.check(result, "Reading a raw key")
            return buffer.taken()


@contextmanager
def operation(key: EVPKey) -> Iterator[int]:
    """Give an EVP_PKEY_CTX for one operation with a key."""
    functions = key.library.functions
    context = functions.EVP_PKEY_CTX_new_from_pkey(None, key.pointer, None)
    if not context:
        raise key.library.failure("EVP_PKEY_CTX_new_from_pkey")
    try:
        yield context
    finally:
        functions.EVP_PKEY_CTX_free(context)


def seed_bytes(algorithm: Algorithm) -> int:
    """
    Return the length of the seed that a key is made from.

    Standard:
        FIPS 203, algorithm 16 (d ‖ z); FIPS 204, algorithm 6 (ξ); FIPS 205, algorithm
        18 (SK.seed ‖ SK.prf ‖ PK.seed).
    """
    row = spec(algorithm)
    whole = row.private_bytes
    return whole // 4 * 3 if row.family is Family.SLH_DSA else whole


def key_from_seed(library: Libcrypto, algorithm: Algorithm, seed: bytes) -> EVPKey:
    """
    Make the key that follows from a seed.

    Raises:
        ValueError: The seed is not as long as the algorithm's seeds.
    """
    _check_size(seed, seed_bytes(algorithm))
    functions = library.functions
    name = algorithm.value.encode()
    context = functions.EVP_PKEY_CTX_new_from_name(None, name, None)
    if not context:
        raise library.failure("EVP_PKEY_CTX_new_from_name")
    pointer = ctypes.c_void_p()
    try:
        library.check(functions.EVP_PKEY_keygen_init(context), "EVP_PKEY_keygen_init")
        given = ossl_parameters(seed=seed)
        library.check(
            functions.EVP_PKEY_CTX_set_params(context, given), "Giving a seed"
        )
        made = functions.EVP_PKEY_generate(context, ctypes.byref(pointer))
        library.check(made, "EVP_PKEY_generate")
    finally:
        functions.EVP_PKEY_CTX_free(context)
    return _owned(library, algorithm, pointer.value, "EVP_PKEY_generate")


def key_from_private(library: Libcrypto, algorithm: Algorithm, raw: bytes) -> EVPKey:
    """
    Take the four parts of an SLH-DSA private key, unchecked (FIPS 205, figure 15).

    Raises:
        ValueError: It is of another length.
    """
    _check_size(raw, spec(algorithm).private_bytes)
    name = algorithm.value.encode()
    pointer = library.functions.EVP_PKEY_new_raw_private_key_ex(
        None, name, None, raw, len(raw)
    )
    return _owned(library, algorithm, pointer, "EVP_PKEY_new_raw_private_key_ex")


def key_from_expanded(library: Libcrypto, algorithm: Algorithm, raw: bytes) -> EVPKey:
    """
    Take the expanded private key of ML-KEM; its hash of its public part is checked.

    Raises:
        LibcryptoError: It is not a private key.
    """
    name = algorithm.value.encode()
    pointer = library.functions.EVP_PKEY_new_raw_private_key_ex(
        None, name, None, raw, len(raw)
    )
    return _owned(library, algorithm, pointer, "EVP_PKEY_new_raw_private_key_ex")


def key_from_public(library: Libcrypto, algorithm: Algorithm, raw: bytes) -> EVPKey:
    """
    Take a raw public key; that of ML-KEM is checked (FIPS 203, section 7.2).

    Raises:
        ValueError: It is of another length.
        LibcryptoError: It is not a public key.
    """
    _check_size(raw, spec(algorithm).public_bytes)
    name = algorithm.value.encode()
    pointer = library.functions.EVP_PKEY_new_raw_public_key_ex(
        None, name, None, raw, len(raw)
    )
    return _owned(library, algorithm, pointer, "EVP_PKEY_new_raw_public_key_ex")


def _owned(
    library: Libcrypto, algorithm: Algorithm, pointer: int | None, call: str
) -> EVPKey:
    if not pointer:
        raise library.failure(call)
    return EVPKey(library, algorithm, pointer)


def _check_size(data: bytes, size: int) -> None:
    if len(data) != size:
        raise ValueError(f"Expected {size} bytes, got {len(data)}.")
