# SPDX-License-Identifier: MIT
"""Compiles the small C files beside it, and loads what comes out."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

_HERE = Path(__file__).parent


class AbsentError(Exception):
    """A rival can't run on this machine; the message says what is missing."""


def compiled(name: str, folder: Path, *libraries: str) -> ctypes.CDLL:
    """Compile ``name.c`` and load it; see `compiled_file`."""
    return ctypes.CDLL(str(compiled_file(name, folder, *libraries)))


def compiled_file(name: str, folder: Path, *libraries: str) -> Path:
    """
    Compile ``name.c`` to a shared library, and return its path.

    Args:
        name: Of the file, without its ending.

        folder: Where the library is put; it must outlive the process.

        libraries: What it is linked with.

    Raises:
        AbsentError: There is no compiler, or headers are missing.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise AbsentError("there is no C compiler")
    library = folder / f"{name}.so"
    done = subprocess.run(
        [
            *(compiler, "-O2", "-shared", "-fPIC", "-o", str(library)),
            str(_HERE / f"{name}.c"),
            *(f"-l{other}" for other in libraries),
        ],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise AbsentError(f"{name}.c does not compile: are all headers installed?")
    return library
