# SPDX-License-Identifier: MIT
"""Use counters in the database of a key store."""

from __future__ import annotations

from typing import Final

from hsm_core._internal.stores.naming import check_material_id, is_key_id
from hsm_core._internal.stores.sqlite.database import Database
from hsm_core.protocols import UseCounters

_VALUE_BYTES: Final = 4096


class SqliteUseCounters(UseCounters):
    """
    Values as rows.

    Args:
        database: Of an open key store.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def __repr__(self) -> str:
        return f"<SqliteUseCounters {str(self._database.path)!r}>"

    def get(self, material_id: str, /) -> bytes | None:
        """
        Return the value of a material, or None if there is none.

        What lies there and is no short byte string has no bytes for us.
        """
        check_material_id(material_id)
        statement = "SELECT value FROM uses WHERE material_id = ?"
        return self._database.stored_bytes(statement, (material_id,), most=_VALUE_BYTES)

    def put(self, material_id: str, value: bytes, /) -> None:
        """Replace the value of a material; see `UseCounters.put`."""
        self._put(material_id, value, durable=True)

    def put_first(self, material_id: str, value: bytes, /) -> None:
        """Store the first value of a material; see `UseCounters.put_first`."""
        # The commit of the key goes into the same log behind it, and syncs both.
        self._put(material_id, value, durable=False)

    def _put(self, material_id: str, value: bytes, *, durable: bool) -> None:
        check_material_id(material_id)
        with self._database.transaction(durable=durable) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO uses (material_id, value) VALUES (?, ?)",
                (material_id, value),
            )

    def discard(self, material_id: str, /) -> None:
        """Delete the value of a material, durably, if there is one."""
        check_material_id(material_id)
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM uses WHERE material_id = ?", (material_id,))

    def material_ids(self) -> list[str]:
        """Return every material that has a value; other names are left alone."""
        found = self._database.rows("SELECT material_id FROM uses")
        return [name for (name,) in found if isinstance(name, str) and is_key_id(name)]
