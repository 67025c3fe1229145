# SPDX-License-Identifier: MIT
"""Presence check for an audit log at a path, before anything is created there."""

from __future__ import annotations

from pathlib import Path

from hsm_core._internal.audit.naming import closed_names, head_name
from hsm_core._internal.stores.filesystem.opening import storage_errors


def trail_exists(path: Path) -> bool:
    """
    Return whether a live segment, a closed one or a head mark lies at *path*.

    Raises:
        StoreUnavailableError: The directory can't be read.
    """
    with storage_errors():
        try:
            names = [entry.name for entry in path.parent.iterdir()]
        except FileNotFoundError:
            return False
    name = path.name
    return name in names or head_name(name) in names or bool(closed_names(name, names))
