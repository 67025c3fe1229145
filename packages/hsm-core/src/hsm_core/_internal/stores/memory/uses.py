# SPDX-License-Identifier: MIT
"""Use counters in memory."""

from __future__ import annotations

import threading

from hsm_core._internal.stores.naming import check_material_id
from hsm_core.protocols import UseCounters


class MemoryUseCounters(UseCounters):
    """Values in a dictionary."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return "<MemoryUseCounters>"

    def get(self, material_id: str, /) -> bytes | None:
        """Return the value of a material, or None if there is none."""
        check_material_id(material_id)
        with self._lock:
            return self._values.get(material_id)

    def put(self, material_id: str, value: bytes, /) -> None:
        """Replace the value of a material."""
        check_material_id(material_id)
        with self._lock:
            self._values[material_id] = value

    def discard(self, material_id: str, /) -> None:
        """Delete the value of a material, if there is one."""
        check_material_id(material_id)
        with self._lock:
            self._values.pop(material_id, None)

    def material_ids(self) -> list[str]:
        """Return every material that has a value."""
        with self._lock:
            return list(self._values)
