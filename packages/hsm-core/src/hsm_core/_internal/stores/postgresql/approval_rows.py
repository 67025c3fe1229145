# SPDX-License-Identifier: MIT
"""Rows of approvals in a database that several nodes share."""

from __future__ import annotations

from typing import Final

from hsm_core._internal.stores.approval_rows import ApprovalColumns
from hsm_core._internal.stores.postgresql.database import ClusterDatabase, NumberedRows

PUT_APPROVAL: Final = (
    "INSERT INTO approvals (approval_id, generation, state, requester, digest, "
    "created_at, closed_at, record) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) "
    "ON CONFLICT (approval_id) DO UPDATE SET generation = $2, state = $3, "
    "requester = $4, digest = $5, created_at = $6, closed_at = $7, record = $8 "
    "WHERE approvals.generation = $2 - 1"
)
"""Creates a row, or replaces one of the generation before: an entry, its record."""
_SELECT: Final = (
    "SELECT approval_id, generation, state, requester, digest, created_at, closed_at "
    "FROM approvals WHERE true"
)


class ClusterApprovalRows(ApprovalColumns):
    """
    Columns that all nodes change.

    Args:
        database: Of the cluster.
    """

    def __init__(self, database: ClusterDatabase) -> None:
        super().__init__(NumberedRows(database), _SELECT, " FOR UPDATE")
