# SPDX-License-Identifier: MIT
"""
Discovery of liboqs, its binding liboqs-python, and its random generator.

Where the library is missing, ``import oqs`` counts down, clones and builds it, and
leaves by SystemExit; where it is there, it writes to standard output. So the library is
looked for first, by the rules that the binding follows, and its version is compared.
The import is tried once in the life of a process that has file descriptors for it.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import fcntl
import importlib.metadata
import io
import logging
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Protocol, TypeVar, cast

from hsm_core._internal.lib.process import check_descriptors
from hsm_core.algorithms import Algorithm, Family, spec


class KEMObject(Protocol):
    """``oqs.KeyEncapsulation``: one mechanism, and the private key it was given."""

    length_public_key: int
    length_secret_key: int
    length_ciphertext: int
    length_shared_secret: int
    length_keypair_seed: int

    def generate_keypair_seed(self, seed: bytes, /) -> bytes:
        """Keep the key that follows from a seed, and return its public half."""
        ...

    def export_secret_key(self) -> bytes:
        """Return the expanded private key."""
        ...

    def encap_secret(self, public_key: bytes, /) -> tuple[bytes, bytes]:
        """Return encapsulation and shared secret, in this order."""
        ...

    def decap_secret(self, ciphertext: bytes, /) -> bytes:
        """Return the shared secret."""
        ...

    def free(self) -> None:
        """Overwrite the private key and give back what was allocated."""
        ...


class SignatureObject(Protocol):
    """``oqs.Signature``: one mechanism, and the private key it was given."""

    length_public_key: int
    length_secret_key: int
    length_signature: int
    sig_with_ctx_support: bool

    def generate_keypair(self) -> bytes:
        """Keep a fresh key, and return its public half."""
        ...

    def export_secret_key(self) -> bytes:
        """Return the private key."""
        ...

    def sign(self, message: bytes, /) -> bytes:
        """Return a signature; of mechanisms that take mu, over mu."""
        ...

    def verify(self, message: bytes, signature: bytes, public_key: bytes, /) -> bool:
        """Return whether a signature is right; of mechanisms that take mu, over mu."""
        ...

    def sign_with_ctx_str(self, message: bytes, context: bytes, /) -> bytes:
        """Return a hedged signature."""
        ...

    def verify_with_ctx_str(
        self, message: bytes, signature: bytes, context: bytes, public_key: bytes, /
    ) -> bool:
        """Return whether a signature is right."""
        ...

    def free(self) -> None:
        """Overwrite the private key and give back what was allocated."""
        ...


class Binding(Protocol):
    """The module ``oqs``."""

    def KeyEncapsulation(  # noqa: N802 - a class there
        self, name: str, secret_key: bytes | None = None, /
    ) -> KEMObject:
        """Return an object of a KEM."""
        ...

    def Signature(  # noqa: N802 - a class there
        self, name: str, secret_key: bytes | None = None, /
    ) -> SignatureObject:
        """Return an object of a signature scheme."""
        ...

    def get_enabled_kem_mechanisms(self) -> Collection[str]:
        """Return the names of the KEMs in this build of the library."""
        ...

    def get_enabled_sig_mechanisms(self) -> Collection[str]:
        """Return the names of the signature schemes in this build of the library."""
        ...

    def oqs_version(self) -> str:
        """Return the version of the library."""
        ...

    def native(self) -> ctypes.CDLL:
        """Return the library."""
        ...


def mechanism_name(algorithm: Algorithm) -> str:
    """Return what liboqs calls an algorithm."""
    if spec(algorithm).family is not Family.SLH_DSA:
        return algorithm.value
    parameters = algorithm.value.removeprefix("SLH-DSA-")
    return f"SLH_DSA_PURE_{parameters.upper().replace('-', '_')}"


def mu_name(algorithm: Algorithm) -> str:
    """Return what liboqs calls ML-DSA over a given mu, where it has that."""
    return f"{mechanism_name(algorithm)}-extmu"


_DISTRIBUTION: Final = "liboqs-python"
_LOGGER: Final = "oqs.oqs"
_FIRST_FREE: Final = 3
"""No copy may take the place of a standard stream that is closed."""


@dataclass(frozen=True, slots=True)
class OqsLibrary:
    """
    The binding over a library that goes with it.

    Attributes:
        binding: The module ``oqs``.
        version: Version of liboqs.
    """

    binding: Binding
    version: str


@dataclass(frozen=True, slots=True)
class Absent:
    """Reason why liboqs can't be used."""

    reason: str


_OPENING: Final = threading.Lock()


def open_library() -> OqsLibrary | Absent:
    """
    Return liboqs, or why it can't be used; the first answer is kept.

    Raises:
        UnavailableError: No file descriptors are left to look for it.
    """
    with _OPENING:
        return _open()


@cache
def _open() -> OqsLibrary | Absent:
    check_descriptors()
    try:
        wrapper = importlib.metadata.version(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return Absent(f"The package {_DISTRIBUTION} is not installed.")
    library = _load()
    if library is None:
        return Absent("The shared library of liboqs was not found.")
    version = _version(library)
    if _release(version) != _release(wrapper):
        return Absent(
            f"liboqs {version} is incompatible with {_DISTRIBUTION} {wrapper}."
        )
    binding = _import()
    if binding is None:
        return Absent(f"{_DISTRIBUTION} {wrapper} could not be imported.")
    if binding.oqs_version() != version:
        return Absent(f"{_DISTRIBUTION} loaded a liboqs other than {version}.")
    return OqsLibrary(binding, version)


def _load() -> ctypes.CDLL | None:
    """Return the library that the binding would open."""
    for name in _names():
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name)
    return None


def _names() -> Iterator[str]:
    """Give the names that the binding tries, in its order."""
    for name in ("liboqs", "oqs"):
        found = None
        with contextlib.suppress(Exception):  # as the binding: it runs other programs
            found = ctypes.util.find_library(name)
        if found:
            yield found
    installed = os.environ.get("OQS_INSTALL_PATH")
    root = Path(installed) if installed is not None else Path.home() / "_oqs"
    suffix = "dylib" if sys.platform == "darwin" else "so"
    for folder in ("lib", "lib64"):
        yield str((root / folder).absolute() / f"liboqs.{suffix}")


def _version(library: ctypes.CDLL) -> str:
    """Return what the library says; empty if it is another library of this name."""
    try:
        function = library["OQS_version"]
    except AttributeError:
        return ""
    function.restype = ctypes.c_char_p
    return (function() or b"").decode("ascii", "replace")


def _release(version: str) -> list[str]:
    """Return major and minor, in which library and binding must agree."""
    return version.split(".")[:2]


def _import() -> Binding | None:
    with _quiet():
        try:
            import oqs
        except (Exception, SystemExit):
            return None
        return cast("Binding", oqs)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """
    Keep standard output clean of what the binding and the library write.

    What is written goes to standard error, so that nothing of other threads is lost.
    """
    logger = logging.getLogger(_LOGGER)
    logger.disabled = True
    with (
        contextlib.redirect_stdout(sys.stderr or io.StringIO()),
        _descriptor_redirected(),
    ):
        yield
    for handler in tuple(logger.handlers):
        logger.removeHandler(handler)


@contextlib.contextmanager
def _descriptor_redirected() -> Iterator[None]:
    """Redirect descriptor 1 to standard error, if both are open."""
    try:
        kept = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    except OSError:
        yield
        return
    try:
        _point(1, at=2)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _point(descriptor: int, *, at: int) -> None:
    try:
        os.dup2(at, descriptor)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


T = TypeVar("T")

_FILL: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)
_SYSTEM: Final = b"system"


class _Seed:
    """A seed on its way to one thread."""

    __slots__ = ("rest", "thread", "too_short")

    def __init__(self, seed: bytes) -> None:
        self.rest = seed
        self.thread = threading.get_ident()
        self.too_short = False


class Draws:
    """
    Replaceable random generator of liboqs.

    Args:
        native: The library.

    Attributes:
        undisturbed: Held while nobody may replace the generator, for what would be
            worthless if its randomness were not the library's own.

    Raises:
        AttributeError: The library has no replaceable generator.
    """

    def __init__(self, native: ctypes.CDLL) -> None:
        self.undisturbed = threading.Lock()
        self._current: _Seed | None = None
        self._callback = _FILL(self._fill)
        self._replace = native["OQS_randombytes_custom_algorithm"]
        self._replace.argtypes = [_FILL]
        self._replace.restype = None
        self._restore = native["OQS_randombytes_switch_algorithm"]
        self._restore.argtypes = [ctypes.c_char_p]
        self._restore.restype = ctypes.c_int

    def from_seed(self, seed: bytes, make: Callable[[], T]) -> T:
        """
        Return what *make* makes when it is given *seed* for its randomness.

        Raises:
            RuntimeError: It has not drawn the seed wholly, or more at once.
        """
        self.undisturbed.acquire()
        drawn = self._current = _Seed(seed)
        try:
            self._replace(self._callback)
            made = make()
        finally:
            self._end(drawn)
        if drawn.rest or drawn.too_short:
            raise RuntimeError("liboqs did not use the given seed.")
        return made

    def _end(self, drawn: _Seed) -> None:
        """Give the library its own generator back, unless that is done."""
        if self._current is drawn:
            restored = self._restore(_SYSTEM)
            self._current = None
            self.undisturbed.release()
            if restored != 0:
                raise RuntimeError("liboqs no longer uses the given random generator.")

    def _fill(self, target: int, size: int) -> None:
        """Fill memory of the library: with the seed for its thread, else at random."""
        drawn = self._current
        if drawn is None or drawn.thread != threading.get_ident():
            ctypes.memmove(target, os.urandom(size), size)
            return
        if size > len(drawn.rest):
            drawn.too_short = True
            ctypes.memmove(target, os.urandom(size), size)
            return
        ctypes.memmove(target, drawn.rest, size)
        drawn.rest = drawn.rest[size:]
        if not drawn.rest:
            self._end(drawn)


@dataclass(frozen=True, slots=True)
class Engine:
    """
    One open library.

    Attributes:
        binding: The module ``oqs``.
        draws: Its random generator.
    """

    binding: Binding
    draws: Draws


def exactly(answer: bytes, size: int) -> bytes:
    """
    Return what the library gave.

    Raises:
        RuntimeError: It is of another length than it must be.
    """
    if len(answer) != size:
        raise RuntimeError(f"liboqs returned {len(answer)} bytes instead of {size}.")
    return answer
