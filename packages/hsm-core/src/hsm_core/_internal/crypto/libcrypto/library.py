# SPDX-License-Identifier: MIT
"""
The operating system's libcrypto: where it is, whether it will do, how it is called.

It is opened by name, never searched for: ``ctypes.util.find_library`` starts a compiler
or ``ldconfig``. Symbols are looked up in that one library, so another OpenSSL in the
process, such as the one inside cryptography, is neither used nor disturbed. It is never
closed again.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Final

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
    """A call failed that should not have."""


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
    """Return the first of these libraries that will do, or None."""
    for name in names:
        try:
            return Libcrypto(name)
        except (OSError, AttributeError, LibcryptoError):
            continue
    return None
