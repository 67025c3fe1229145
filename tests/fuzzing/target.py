# SPDX-License-Identifier: MIT
"""What is fuzzed: a parser, what it may raise, and inputs that it takes."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from hsm_core import wire
from hsm_core.error_records import error_record
from hsm_core.errors import HSMError

Reader: TypeAlias = Callable[[bytes], object]
"""Reads bytes from anywhere, and returns something or raises what it says it does."""

_MOST_CHARACTERS: Final = 4096
"""Longest message of a refusal: no input is repeated without end."""


def own_folder() -> Path:
    """Return a new folder, which is removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="ferrohsm-")).resolve()
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """
    A parser, or several for the same bytes.

    Where a MAC or a signature comes first, one reader takes the bytes as they are and
    another puts a right one round them, or nothing behind it would ever be reached.

    Attributes:
        name: Of the target, on the command line.
        readers: What is called, one after the other.
        seeds: Inputs each of which one reader at least takes.
        refusals: Errors that a reader may raise.
        longest: Longest input that is made, in bytes.
    """

    name: str
    readers: Sequence[Reader]
    seeds: Sequence[bytes]
    refusals: tuple[type[Exception], ...] = (HSMError,)
    longest: int = 4096

    def read(self, data: bytes) -> int:
        """
        Give an input to all readers; return how many have taken it.

        Raises:
            Exception: What no reader may raise, or an error that can't be told to
                anybody.
        """
        taken = 0
        for reader in self.readers:
            try:
                reader(data)
            except self.refusals as error:
                _check(error)
            else:
                taken += 1
        return taken


def _check(error: Exception) -> None:
    """Check that an error can be answered, logged and told to a person."""
    assert len(str(error)) <= _MOST_CHARACTERS
    str(error).encode()
    if isinstance(error, HSMError):
        assert type(error) is not HSMError
        wire.encode_json(error_record(error))
