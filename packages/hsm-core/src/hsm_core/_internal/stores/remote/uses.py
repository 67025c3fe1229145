# SPDX-License-Identifier: MIT
"""
Use counters in a vault: one small object per material.

Each put expects the tag of the put before, so one that is late can't set a counter
back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from hsm_core._internal.stores.naming import check_material_id, is_key_id
from hsm_core._internal.stores.remote.access import VaultAccess
from hsm_core._internal.stores.remote.names import USES, uses_name
from hsm_core.errors import StoreUnavailableError, VaultConflictError
from hsm_core.protocols import ABSENT, UseCounters

_STRIPES: Final = 16


class RemoteUseCounters(UseCounters):
    """
    Values as objects of a key store.

    Args:
        vault: Where they lie.

        check_usable: Raises when the key store may not be used.
    """

    def __init__(self, vault: VaultAccess, check_usable: Callable[[], None]) -> None:
        self._vault = vault
        self._check_usable = check_usable
        self._tags: dict[str, str] = {}
        self._locks = [threading.Lock() for _ in range(_STRIPES)]

    def __repr__(self) -> str:
        return f"<RemoteUseCounters in {self._vault!r}>"

    def get(self, material_id: str, /) -> bytes | None:
        """Return the value of a material, or None if there is none."""
        check_material_id(material_id)
        self._check_usable()
        found = self._vault.get(uses_name(material_id))
        return None if found is None else found.data

    def put(self, material_id: str, value: bytes, /) -> None:
        """Replace the value of a material; see `UseCounters.put`."""
        check_material_id(material_id)
        with self._lock_of(material_id):
            self._check_usable()
            known = self._tags.pop(material_id, None)
            if known is None or not self._put(material_id, value, known):
                # Nobody else may write, so what is there now is an earlier put of ours.
                found = self._vault.get(uses_name(material_id))
                self._check_usable()
                tag = ABSENT if found is None else found.tag
                if not self._put(material_id, value, tag):
                    raise StoreUnavailableError("Another process writes this counter.")

    def _put(self, material_id: str, value: bytes, tag: str) -> bool:
        name = uses_name(material_id)
        try:
            self._tags[material_id] = self._vault.put_surely(name, value, expected=tag)
        except VaultConflictError:
            return False
        return True

    def discard(self, material_id: str, /) -> None:
        """Delete the value of a material, if there is one."""
        check_material_id(material_id)
        with self._lock_of(material_id):
            self._check_usable()
            self._tags.pop(material_id, None)
            self._vault.delete(uses_name(material_id))

    def material_ids(self) -> list[str]:
        """Return every material that has a value; other names are left alone."""
        self._check_usable()
        names = (name.removeprefix(USES) for name in self._vault.list_all(USES))
        return [name for name in names if is_key_id(name)]

    def _lock_of(self, material_id: str) -> threading.Lock:
        return self._locks[hash(material_id) % _STRIPES]
