# SPDX-License-Identifier: MIT
"""
The vaults that the contract suite runs over.

A new implementation is one more row of `ROWS`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from hsm_core._internal.stores.remote.memory_vault import MemoryVault
from hsm_core.protocols import RemoteKeyVault
from tests.support import REPOSITORY

GUIDE = REPOSITORY / "examples" / "vault"


@dataclass(frozen=True)
class VaultRow:
    """
    One implementation.

    Attributes:
        name: Shown in the id of each test.
        open: Opens an empty vault; a folder is given to it.
    """

    name: str
    open: Callable[[Path], RemoteKeyVault]

    def __str__(self) -> str:
        return self.name


@cache
def share_vault() -> ModuleType:
    """Return the module of the how-to guide."""
    spec = importlib.util.spec_from_file_location(
        "share_vault", GUIDE / "share_vault.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _memory(folder: Path) -> RemoteKeyVault:
    return MemoryVault()


def _share(folder: Path) -> RemoteKeyVault:
    (folder / "lock").touch()
    opened: RemoteKeyVault = share_vault().open_share(str(folder))
    return opened


def _s3(folder: Path) -> RemoteKeyVault:
    from tests.core.s3_server import shared_storage

    return shared_storage().new_vault()


ROWS = [VaultRow("memory", _memory), VaultRow("s3", _s3), VaultRow("guide", _share)]
