# SPDX-License-Identifier: MIT
"""Table of approvals in SQLite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hsm_core._internal.stores.approval_rows import ApprovalColumns
from hsm_core._internal.stores.sqlite.connection import Schema
from hsm_core._internal.stores.sqlite.database import Database

if TYPE_CHECKING:
    import sqlite_utils

PUT_APPROVAL: Final = (
    "INSERT INTO approvals (approval_id, generation, state, requester, digest, "
    "created_at, closed_at, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) "
    "ON CONFLICT (approval_id) DO UPDATE SET generation = ?2, state = ?3, "
    "requester = ?4, digest = ?5, created_at = ?6, closed_at = ?7, record = ?8"
)
"""Creates or replaces a row: the values of its entry, and its record."""
_SELECT: Final = (
    "SELECT approval_id, generation, state, requester, digest, created_at, closed_at "
    "FROM approvals WHERE typeof(created_at) = 'integer'"
)

_INDEXES: Final = {
    "approvals_state": "state, created_at, approval_id",
    "approvals_requester": "requester, state, created_at, approval_id",
    "approvals_digest": "digest, created_at, approval_id",
    "approvals_order": "created_at, approval_id",
}


def _first(tables: sqlite_utils.Database) -> None:
    tables.execute(
        "CREATE TABLE approvals (n INTEGER PRIMARY KEY, "
        "approval_id TEXT NOT NULL UNIQUE, generation INTEGER NOT NULL, "
        "state TEXT NOT NULL, requester TEXT NOT NULL, digest TEXT NOT NULL, "
        "created_at INTEGER NOT NULL, closed_at INTEGER NOT NULL, "
        "record BLOB NOT NULL) STRICT"
    )
    for name, columns in _INDEXES.items():
        tables.execute(f"CREATE INDEX {name} ON approvals ({columns})")


APPROVALS_SCHEMA: Final = Schema(application_id=0x46484150, steps=(_first,))
"""Approvals: ``FHAP``."""


class ApprovalRows(ApprovalColumns):
    """
    Columns in SQLite, where a place may hold a value of any type.

    Args:
        database: Of an open approval store.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database, _SELECT)
