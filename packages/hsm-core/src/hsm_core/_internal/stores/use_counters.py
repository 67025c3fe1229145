# SPDX-License-Identifier: MIT
"""Use counters over a record store: one small record per material."""

from __future__ import annotations

from typing import Final

from hsm_core._internal.stores.naming import check_material_id, is_key_id
from hsm_core._internal.stores.records import USES, Records
from hsm_core.protocols import UseCounters

_VALUE_BYTES: Final = 4096


class RecordUseCounters(UseCounters):
    """
    Values as records.

    Args:
        records: Closed by the key store that has them too.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    def __repr__(self) -> str:
        return f"<RecordUseCounters in {self._records!r}>"

    def get(self, material_id: str, /) -> bytes | None:
        """Return the value of a material, or None; empty if it can't be one."""
        check_material_id(material_id)
        return self._records.stored(USES + material_id, _VALUE_BYTES)

    def put(self, material_id: str, value: bytes, /) -> None:
        """Replace the value of a material; see `UseCounters.put`."""
        check_material_id(material_id)
        self._records.put(USES + material_id, value)

    def put_first(self, material_id: str, value: bytes, /) -> None:
        """Store the first value of a material; see `UseCounters.put_first`."""
        check_material_id(material_id)
        self._records.put(USES + material_id, value, is_first=True)

    def discard(self, material_id: str, /) -> None:
        """Delete the value of a material, durably, if there is one."""
        check_material_id(material_id)
        self._records.delete([USES + material_id])

    def material_ids(self) -> list[str]:
        """Return every material that has a value; other names are left alone."""
        return [name for name in self._records.ids(USES) if is_key_id(name)]
