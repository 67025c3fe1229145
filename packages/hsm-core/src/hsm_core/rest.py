# SPDX-License-Identifier: MIT
"""
REST routes of the operations: a data table for server, CLI and docs.

A path parameter or query parameter is a field of the operation; all other fields are
the members of a JSON body. For rows with a *raw_request*, the body may be that field
alone as ``application/octet-stream``, the other fields then being query parameters;
for rows with a *raw_response*, ``Accept: application/octet-stream`` asks for that field
of the result alone. For rows with *events*, ``Accept: text/event-stream`` asks for a
live view.
"""

from __future__ import annotations

from typing import Any, Final

from hsm_core import operations as ops
from hsm_core.model import Record

__all__ = [
    "API_PREFIX",
    "APPROVAL_HEADER",
    "REQUEST_CODES",
    "ROUTES",
    "Route",
    "path_fields",
    "route_of",
]

APPROVAL_HEADER: Final = "FerroHSM-Approval"
"""Header with the ID of the granted approval to use."""

API_PREFIX: Final = "/api/v1"
"""Base path of all routes."""


class Route(Record, frozen=True, kw_only=True):
    """
    One row of the table.

    Attributes:
        path: Template below `API_PREFIX`, with fields in braces.
        success: Status of a success.
        location: Template of the Location header over fields of the result.
        raw_request: Field that may be the whole body.
        raw_response: Field of the result that may be the whole answer.
        events: Whether the answer may go on as server-sent events.
    """

    operation: type[ops.Operation[Any]]
    method: str
    path: str
    success: int = 200
    location: str = ""
    raw_request: str = ""
    raw_response: str = ""
    events: bool = False

    @property
    def has_body(self) -> bool:
        """Whether fields travel in a body rather than in the query."""
        return self.method in {"POST", "PUT", "PATCH"}


REQUEST_CODES: Final = {
    "cross_site": 403,
    "stale_form": 403,
    "route_not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "unsupported_media_type": 415,
    "expectation_failed": 417,
    "internal": 500,
}
"""Codes of requests that never became an operation, with their status."""

_KEY: Final = "/keys/{key_id}"
_APPROVAL: Final = "/approvals/{approval_id}"

ROUTES: Final = (
    Route(
        operation=ops.CreateKey,
        method="POST",
        path="/keys",
        success=201,
        location="/keys/{key_id}",
    ),
    Route(
        operation=ops.ImportKey,
        method="POST",
        path="/import",
        success=201,
        location="/keys/{key_id}",
    ),
    Route(
        operation=ops.DeriveKey,
        method="POST",
        path="/derive",
        success=201,
        location="/keys/{key_id}",
    ),
    Route(operation=ops.ListKeys, method="GET", path="/keys"),
    Route(operation=ops.DescribeKey, method="GET", path=_KEY),
    Route(operation=ops.DestroyKey, method="DELETE", path=_KEY),
    Route(operation=ops.ListVersions, method="GET", path=f"{_KEY}/versions"),
    Route(operation=ops.RotateKey, method="POST", path=f"{_KEY}/rotate"),
    Route(operation=ops.Rollback, method="POST", path=f"{_KEY}/rollback"),
    Route(operation=ops.RevokeKey, method="POST", path=f"{_KEY}/revoke"),
    Route(operation=ops.GetPublicKey, method="GET", path=f"{_KEY}/public-key"),
    Route(
        operation=ops.ExportKey,
        method="POST",
        path=f"{_KEY}/export",
        raw_response="wrapped",
    ),
    Route(
        operation=ops.Sign,
        method="POST",
        path=f"{_KEY}/sign",
        raw_request="message",
        raw_response="signature",
    ),
    Route(
        operation=ops.Verify,
        method="POST",
        path=f"{_KEY}/verify",
        raw_request="message",
    ),
    Route(
        operation=ops.Encrypt,
        method="POST",
        path=f"{_KEY}/encrypt",
        raw_request="plaintext",
        raw_response="ciphertext",
    ),
    Route(
        operation=ops.Decrypt,
        method="POST",
        path=f"{_KEY}/decrypt",
        raw_request="ciphertext",
        raw_response="plaintext",
    ),
    Route(operation=ops.Encapsulate, method="POST", path=f"{_KEY}/encapsulate"),
    Route(
        operation=ops.Decapsulate,
        method="POST",
        path=f"{_KEY}/decapsulate",
        raw_request="ciphertext",
        raw_response="shared_secret",
    ),
    Route(
        operation=ops.Seal,
        method="POST",
        path=f"{_KEY}/seal",
        raw_request="plaintext",
        raw_response="ciphertext",
    ),
    Route(
        operation=ops.Open,
        method="POST",
        path=f"{_KEY}/open",
        raw_request="ciphertext",
        raw_response="plaintext",
    ),
    Route(
        operation=ops.Rewrap,
        method="POST",
        path=f"{_KEY}/rewrap",
        raw_request="ciphertext",
        raw_response="ciphertext",
    ),
    Route(operation=ops.GenerateDataKey, method="POST", path=f"{_KEY}/data-key"),
    Route(
        operation=ops.ComputeMac,
        method="POST",
        path=f"{_KEY}/mac",
        raw_request="message",
    ),
    Route(
        operation=ops.VerifyMac,
        method="POST",
        path=f"{_KEY}/mac/verify",
        raw_request="message",
    ),
    Route(operation=ops.SignBatch, method="POST", path=f"{_KEY}/sign/batch"),
    Route(operation=ops.VerifyBatch, method="POST", path=f"{_KEY}/verify/batch"),
    Route(operation=ops.EncryptBatch, method="POST", path=f"{_KEY}/encrypt/batch"),
    Route(operation=ops.DecryptBatch, method="POST", path=f"{_KEY}/decrypt/batch"),
    Route(operation=ops.ComputeMacBatch, method="POST", path=f"{_KEY}/mac/batch"),
    Route(operation=ops.VerifyMacBatch, method="POST", path=f"{_KEY}/mac/verify/batch"),
    Route(
        operation=ops.GenerateRandom,
        method="POST",
        path="/random",
        raw_response="random",
    ),
    Route(
        operation=ops.ListAuditEvents, method="GET", path="/audit/events", events=True
    ),
    Route(operation=ops.VerifyAudit, method="POST", path="/audit/verify"),
    Route(operation=ops.Status, method="GET", path="/status"),
    Route(operation=ops.ListAlgorithms, method="GET", path="/algorithms"),
    Route(operation=ops.VerifyStore, method="POST", path="/store/verify"),
    Route(
        operation=ops.BackUpStores, method="POST", path="/store/backups", success=201
    ),
    Route(operation=ops.RecoverStore, method="POST", path="/store/recover"),
    Route(operation=ops.RecoverKey, method="POST", path="/store/keys/{key_id}/recover"),
    Route(operation=ops.SelfTest, method="POST", path="/selftest"),
    Route(operation=ops.ActivateKey, method="POST", path=f"{_KEY}/activate"),
    Route(operation=ops.SuspendKey, method="POST", path=f"{_KEY}/suspend"),
    Route(operation=ops.ResumeKey, method="POST", path=f"{_KEY}/resume"),
    Route(operation=ops.UpdateKey, method="PATCH", path=_KEY),
    Route(operation=ops.SetRotation, method="PUT", path=f"{_KEY}/rotation"),
    Route(operation=ops.CancelDestroy, method="POST", path=f"{_KEY}/cancel-destroy"),
    # Policy
    Route(operation=ops.ShowPolicy, method="GET", path="/policy"),
    Route(operation=ops.ExplainPolicy, method="POST", path="/policy/explain"),
    Route(operation=ops.TestPolicy, method="POST", path="/policy/test"),
    Route(operation=ops.ListApprovals, method="GET", path="/approvals"),
    Route(operation=ops.GetApproval, method="GET", path=_APPROVAL),
    Route(operation=ops.Approve, method="POST", path=f"{_APPROVAL}/approve"),
    Route(operation=ops.Deny, method="POST", path=f"{_APPROVAL}/deny"),
    Route(operation=ops.Withdraw, method="POST", path=f"{_APPROVAL}/withdraw"),
    Route(operation=ops.CancelApproval, method="POST", path=f"{_APPROVAL}/cancel"),
    Route(
        operation=ops.ExtendRetention, method="POST", path=f"{_KEY}/retention/extend"
    ),
    Route(operation=ops.HoldKey, method="POST", path=f"{_KEY}/hold"),
    Route(operation=ops.ReleaseKey, method="POST", path=f"{_KEY}/release"),
    Route(operation=ops.RetentionStatus, method="GET", path="/retention"),
    Route(operation=ops.BeginLedger, method="POST", path="/retention/ledger"),
)
"""REST routes, one per operation."""

_BY_OPERATION: Final = {route.operation: route for route in ROUTES}


def route_of(operation: type[ops.Operation[Any]]) -> Route:
    """Return the row of an operation."""
    return _BY_OPERATION[operation]


def path_fields(path: str) -> tuple[str, ...]:
    """Return the names in braces of a template."""
    return tuple(part[1:-1] for part in path.split("/") if part.startswith("{"))
