# SPDX-License-Identifier: MIT
"""
Finding liboqs, and only then importing its binding.

Where the library is missing, ``import oqs`` counts down, clones and builds it, and
leaves by SystemExit; where it is there, it writes to standard output. So the library is
looked for first, by the rules that the binding follows, and its version is compared.
The import is tried once in the life of a process.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import fcntl
import importlib.metadata
import io
import logging
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from hsm_core._internal.crypto.oqs.binding import Binding

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
    """Why liboqs can't be used."""

    reason: str


class _Once:
    """The one attempt of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OqsLibrary | Absent | None = None

    def open(self) -> OqsLibrary | Absent:
        with self._lock:
            if self._found is None:
                self._found = _open()
            return self._found


_ONCE: Final = _Once()


def open_library() -> OqsLibrary | Absent:
    """Return liboqs, or why it can't be used; the first answer is kept."""
    return _ONCE.open()


def _open() -> OqsLibrary | Absent:
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
