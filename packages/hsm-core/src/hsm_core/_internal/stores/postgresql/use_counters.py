# SPDX-License-Identifier: MIT
"""Use counters as rows of a database that several nodes share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hsm_core._internal.keyring.documents import is_key_id
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core._internal.stores.records import check_material_id
from hsm_core.protocols import UseCounters

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.driver import ServerConnection

_VALUE_BYTES: Final = 4096
_PUT: Final = (
    "INSERT INTO uses (material_id, value) VALUES ($1, $2) "
    "ON CONFLICT (material_id) DO UPDATE SET value = $2"
)
_PUT_FIRST: Final = (
    "INSERT INTO uses (material_id, value) VALUES ($1, $2) "
    "ON CONFLICT (material_id) DO NOTHING"
)
_REPLACE: Final = "UPDATE uses SET value = $2 WHERE material_id = $1 AND value = $3"


class PostgresUseCounters(UseCounters):
    """
    One row for each material, which all nodes change by compare-and-set.

    Args:
        database: Of the key store; closed with it.
    """

    is_shared = True

    def __init__(self, database: ClusterDatabase) -> None:
        self._database = database

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in {self._database!r}>"

    def get(self, material_id: str, /) -> bytes | None:
        """Return the value of a material, or None; empty if it can't be one."""
        check_material_id(material_id)
        found = self._database.row(
            "SELECT value FROM uses WHERE material_id = $1", (material_id,)
        )
        if found is None:
            return None
        value = found[0]
        is_ours = isinstance(value, bytes) and len(value) <= _VALUE_BYTES
        return value if is_ours else b""

    def put(self, material_id: str, value: bytes, /) -> None:
        """Replace the value of a material; see `UseCounters.put`."""
        check_material_id(material_id)
        self._change(_PUT, material_id, value)

    def replace(self, material_id: str, before: bytes | None, after: bytes, /) -> bool:
        """Replace an expected value; a row that others change is waited for."""
        check_material_id(material_id)
        if before is None:
            return self._change(_PUT_FIRST, material_id, after)
        return self._change(_REPLACE, material_id, after, before)

    def discard(self, material_id: str, /) -> None:
        """Delete the value of a material, durably, if there is one."""
        check_material_id(material_id)
        self._change("DELETE FROM uses WHERE material_id = $1", material_id)

    def material_ids(self) -> list[str]:
        """Return every material that has a value; other names are left alone."""
        found = self._database.rows("SELECT material_id FROM uses")
        return [name for (name,) in found if isinstance(name, str) and is_key_id(name)]

    def _change(self, statement: str, *values: object) -> bool:
        """Make one change; return whether there was something to change."""

        def change(connection: ServerConnection) -> bool:
            return connection.execute(statement.encode(), values).rowcount > 0

        return self._database.run(change)
