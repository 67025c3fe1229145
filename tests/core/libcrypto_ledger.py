# SPDX-License-Identifier: MIT
"""A libcrypto whose allocations are counted, and whose calls can be made to fail."""

from __future__ import annotations

import ctypes
from typing import Any, Final

_MAKERS: Final = {
    "EVP_KEM_fetch",
    "EVP_PKEY_CTX_new_from_name",
    "EVP_PKEY_CTX_new_from_pkey",
    "EVP_PKEY_new_raw_private_key_ex",
    "EVP_PKEY_new_raw_public_key_ex",
}
_POINTERS: Final = {*_MAKERS, "EVP_SIGNATURE_fetch"}
_FREERS: Final = {"EVP_KEM_free", "EVP_PKEY_free", "EVP_PKEY_CTX_free"}


class Ledger:
    """
    What ``ctypes.CDLL`` gives, for one thread, with a book of what is not yet freed.

    Args:
        library: The real one.

    Attributes:
        called: Names of functions, in the order of their calls.
        failing: Names of functions that fail without being called.
        held: Addresses of objects that were made and not freed.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._functions: dict[str, _Function] = {}
        self.called: list[str] = []
        self.failing: set[str] = set()
        self.held: list[int] = []

    def __getattr__(self, name: str) -> _Function:
        if name not in self._functions:
            function = getattr(self._library, name)
            self._functions[name] = _Function(self, name, function)
        return self._functions[name]


class _Function:
    """One function; its prototype is the real one's."""

    restype: Any
    argtypes: Any

    def __init__(self, ledger: Ledger, name: str, function: Any) -> None:
        object.__setattr__(self, "ledger", ledger)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "function", function)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.__dict__["function"], name, value)

    def __call__(self, *arguments: Any) -> Any:
        ledger: Ledger = self.__dict__["ledger"]
        name: str = self.__dict__["name"]
        ledger.called.append(name)
        if name in ledger.failing:
            return None if name in _POINTERS else 0
        result = self.__dict__["function"](*arguments)
        if name in _MAKERS and result:
            ledger.held.append(result)
        elif name == "EVP_PKEY_generate" and result == 1:
            out = ctypes.cast(arguments[1], ctypes.POINTER(ctypes.c_void_p))
            ledger.held.append(out.contents.value or 0)
        elif name in _FREERS and arguments[0]:
            ledger.held.remove(arguments[0])
        return result
