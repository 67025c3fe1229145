# SPDX-License-Identifier: MIT
"""The operating system's libcrypto, opened by ctypes, and its keys."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from hsm_core._internal.crypto.expanded import seed_bytes
from hsm_core._internal.lib.process import check_descriptors
from hsm_core.algorithms import Algorithm, spec

MINIMUM_VERSION: Final = 0x3050_0000
"""OpenSSL 3.5.0, the first with the algorithms, as OPENSSL_VERSION_NUMBER."""

_NAMES: Final = (
    "libcrypto.so.3",
    "libcrypto.so.4",
    # macOS ends a process that opens its own library, which has no number.
    "/opt/homebrew/opt/openssl@3/lib/libcrypto.3.dylib",
    "/usr/local/opt/openssl@3/lib/libcrypto.3.dylib",
)

_FULL_VERSION_STRING: Final = 7

_int, _text, _pointer, _size = (
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_void_p,
    ctypes.c_size_t,
)
_sizes = ctypes.POINTER(ctypes.c_size_t)

_PROTOTYPES: Final[dict[str, tuple[type | None, tuple[type, ...]]]] = {
    "OpenSSL_version_num": (ctypes.c_ulong, ()),
    "OpenSSL_version": (_text, (_int,)),
    "OPENSSL_cleanse": (None, (_pointer, _size)),
    "ERR_peek_last_error": (ctypes.c_ulong, ()),
    "ERR_error_string_n": (None, (ctypes.c_ulong, _text, _size)),
    "ERR_clear_error": (None, ()),
    "EVP_KEM_fetch": (_pointer, (_pointer, _text, _text)),
    "EVP_KEM_free": (None, (_pointer,)),
    "EVP_SIGNATURE_fetch": (_pointer, (_pointer, _text, _text)),
    "EVP_PKEY_free": (None, (_pointer,)),
    "EVP_PKEY_new_raw_private_key_ex": (
        _pointer,
        (_pointer, _text, _text, _text, _size),
    ),
    "EVP_PKEY_new_raw_public_key_ex": (
        _pointer,
        (_pointer, _text, _text, _text, _size),
    ),
    "EVP_PKEY_get_raw_private_key": (_int, (_pointer, _pointer, _sizes)),
    "EVP_PKEY_get_raw_public_key": (_int, (_pointer, _pointer, _sizes)),
    "EVP_PKEY_CTX_new_from_name": (_pointer, (_pointer, _text, _text)),
    "EVP_PKEY_CTX_new_from_pkey": (_pointer, (_pointer, _pointer, _text)),
    "EVP_PKEY_CTX_free": (None, (_pointer,)),
    "EVP_PKEY_CTX_set_params": (_int, (_pointer, _pointer)),
    "EVP_PKEY_keygen_init": (_int, (_pointer,)),
    "EVP_PKEY_generate": (_int, (_pointer, ctypes.POINTER(_pointer))),
    "EVP_PKEY_sign_message_init": (_int, (_pointer, _pointer, _pointer)),
    "EVP_PKEY_sign": (_int, (_pointer, _pointer, _sizes, _text, _size)),
    "EVP_PKEY_verify_message_init": (_int, (_pointer, _pointer, _pointer)),
    "EVP_PKEY_verify": (_int, (_pointer, _text, _size, _text, _size)),
    "EVP_PKEY_encapsulate_init": (_int, (_pointer, _pointer)),
    "EVP_PKEY_encapsulate": (_int, (_pointer, _pointer, _sizes, _pointer, _sizes)),
    "EVP_PKEY_decapsulate_init": (_int, (_pointer, _pointer)),
    "EVP_PKEY_decapsulate": (_int, (_pointer, _pointer, _sizes, _text, _size)),
}
"""Result and arguments of each function that is called. Bytes are passed in place."""


class LibcryptoError(Exception):
    """A call of OpenSSL failed unexpectedly."""


class Libcrypto:
    """
    An open libcrypto, for many threads.

    Args:
        path: Name for the loader.

    Attributes:
        functions: The library's functions, with their prototypes set. ctypes gives up
            the interpreter lock while they run.
        version: Such as "OpenSSL 3.5.2".

    Raises:
        OSError: There is no such library.
        AttributeError: It lacks a function; so it is older, or something else.
        LibcryptoError: It is older.
    """

    __slots__ = ("_signatures", "functions", "version")

    def __init__(self, path: str) -> None:
        self.functions = ctypes.CDLL(path)
        self._signatures: dict[str, int] = {}
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(self.functions, name)
            function.restype, function.argtypes = result, arguments
        text: bytes = self.functions.OpenSSL_version(_FULL_VERSION_STRING)
        self.version = f"OpenSSL {text.decode('ascii', 'replace')}"
        if self.functions.OpenSSL_version_num() < MINIMUM_VERSION:
            raise LibcryptoError(f"{self.version} is older than OpenSSL 3.5.")

    def has_key(self, name: str) -> bool:
        """Return whether there are keys of this name."""
        context = self.functions.EVP_PKEY_CTX_new_from_name(None, name.encode(), None)
        self.functions.EVP_PKEY_CTX_free(context)
        return self._found(context)

    def has_kem(self, name: str) -> bool:
        """Return whether a KEM of this name is there."""
        kem = self.functions.EVP_KEM_fetch(None, name.encode(), None)
        self.functions.EVP_KEM_free(kem)
        return self._found(kem)

    def has_signature(self, name: str) -> bool:
        """Return whether a signature algorithm of this name is there."""
        return self._found(self.signature(name))

    def signature(self, name: str) -> int | None:
        """Return the EVP_SIGNATURE of a name, which is never freed, or None."""
        if name not in self._signatures:
            found = self.functions.EVP_SIGNATURE_fetch(None, name.encode(), None)
            if not found:
                return None
            self._signatures[name] = found
        return self._signatures[name]

    def check(self, result: int, call: str) -> None:
        """
        Check that a call returned 1.

        Raises:
            LibcryptoError: It did not.
        """
        if result != 1:
            raise self.failure(call)

    def failure(self, call: str) -> LibcryptoError:
        """
        Return the error for a call that failed.

        This thread's error queue is emptied, lest a later user of the same library,
        such as Python's own ``ssl``, takes an old entry for its own.
        """
        reason = ctypes.create_string_buffer(256)
        self.functions.ERR_error_string_n(
            self.functions.ERR_peek_last_error(), reason, len(reason)
        )
        self.forget_errors()
        return LibcryptoError(f"{call} failed: {reason.value.decode(errors='replace')}")

    def forget_errors(self) -> None:
        """Empty this thread's error queue."""
        self.functions.ERR_clear_error()

    def _found(self, pointer: int | None) -> bool:
        if not pointer:
            self.forget_errors()
        return bool(pointer)


def find_libcrypto(names: Sequence[str] = _NAMES) -> Libcrypto | None:
    """
    Return the first of these libraries that will do, or None.

    Raises:
        UnavailableError: The process has no file descriptors left to open one.
    """
    for name in names:
        try:
            return Libcrypto(name)
        except (AttributeError, LibcryptoError):
            continue
        except OSError:
            check_descriptors()
    return None


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
    Take a raw private key: the four parts of SLH-DSA, or the expanded key of ML-KEM.

    The parts are unchecked (FIPS 205, figure 15); of an expanded key, the hash of its
    public part is checked.

    Raises:
        ValueError: It is of another length.
        LibcryptoError: It is not a private key.
    """
    row = spec(algorithm)
    _check_size(raw, row.expanded_bytes or row.private_bytes)
    call = "EVP_PKEY_new_raw_private_key_ex"
    return _raw_key(library, algorithm, raw, call)


def key_from_public(library: Libcrypto, algorithm: Algorithm, raw: bytes) -> EVPKey:
    """
    Take a raw public key; that of ML-KEM is checked (FIPS 203, section 7.2).

    Raises:
        ValueError: It is of another length.
        LibcryptoError: It is not a public key.
    """
    _check_size(raw, spec(algorithm).public_bytes)
    call = "EVP_PKEY_new_raw_public_key_ex"
    return _raw_key(library, algorithm, raw, call)


def _raw_key(library: Libcrypto, algorithm: Algorithm, raw: bytes, call: str) -> EVPKey:
    function = getattr(library.functions, call)
    pointer = function(None, algorithm.value.encode(), None, raw, len(raw))
    return _owned(library, algorithm, pointer, call)


def _owned(
    library: Libcrypto, algorithm: Algorithm, pointer: int | None, call: str
) -> EVPKey:
    if not pointer:
        raise library.failure(call)
    return EVPKey(library, algorithm, pointer)


def _check_size(data: bytes, size: int) -> None:
    if len(data) != size:
        raise ValueError(f"Expected {size} bytes, got {len(data)}.")
