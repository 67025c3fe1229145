# SPDX-License-Identifier: MIT
"""
OpenAPI links from responses to follow-up operations.

Links lead from a new key to its operations, from sign, encrypt and MAC to their
inverse, from a list to its first item, and from an approval request to its decisions.
"""

from __future__ import annotations

from typing import Any, Final

from hsm_core import operations as ops
from hsm_core.operations import Operation
from hsm_server.api.openapi.schemas import Schema

_Kind = type[Operation[Any]]

_MADE: Final = (
    *(ops.DescribeKey, ops.ListVersions, ops.GetPublicKey, ops.UpdateKey),
    *(ops.Sign, ops.SignBatch, ops.Encrypt, ops.EncryptBatch, ops.GenerateDataKey),
    *(ops.ComputeMac, ops.ComputeMacBatch, ops.Encapsulate, ops.Seal, ops.ExportKey),
    *(ops.RotateKey, ops.SetRotation, ops.ActivateKey, ops.SuspendKey, ops.HoldKey),
    *(ops.RevokeKey, ops.DestroyKey),
)
_NEXT: Final[dict[_Kind, tuple[_Kind, ...]]] = {
    ops.CreateKey: _MADE,
    ops.ImportKey: _MADE,
    ops.DeriveKey: _MADE,
    ops.ActivateKey: (ops.DescribeKey, ops.RotateKey),
    ops.RotateKey: (ops.ListVersions, ops.Rollback, ops.RevokeKey),
    ops.Rollback: (ops.DescribeKey,),
    ops.SuspendKey: (ops.DescribeKey, ops.ResumeKey, ops.DestroyKey),
    ops.ResumeKey: (ops.DescribeKey,),
    ops.HoldKey: (ops.DestroyKey, ops.ReleaseKey),
    ops.UpdateKey: (ops.DescribeKey,),
    ops.DestroyKey: (ops.DescribeKey, ops.CancelDestroy),
}
"""Of an answer that shows a key: what is next for this key."""

_INVERSES: Final[dict[_Kind, tuple[_Kind, dict[str, str]]]] = {
    ops.Sign: (ops.Verify, {"message": "request", "signature": "response"}),
    ops.Encrypt: (ops.Decrypt, {"aad": "request", "ciphertext": "response"}),
    ops.Seal: (ops.Open, {"aad": "request", "ciphertext": "response"}),
    ops.GenerateDataKey: (
        ops.Rewrap,
        {"aad": "request", "ciphertext": "response"},
    ),
    ops.ComputeMac: (ops.VerifyMac, {"message": "request", "mac": "response"}),
    ops.Encapsulate: (ops.Decapsulate, {"ciphertext": "response"}),
}
"""Of an answer by a key: what the same key makes of it, with which fields of which."""

_FIRST: Final[dict[_Kind, tuple[_Kind, str]]] = {
    ops.ListKeys: (ops.DescribeKey, "key_id"),
    ops.ListApprovals: (ops.GetApproval, "approval_id"),
}
"""Of a list: what shows one item, by which field."""

_ASKED: Final = (
    ops.GetApproval,
    ops.Approve,
    ops.Deny,
    ops.Withdraw,
    ops.CancelApproval,
)
_WITH_DIGEST: Final = frozenset({ops.Approve})


def link_components() -> dict[str, Schema]:
    """Return the links that several answers share, by name."""
    made = {cls for group in _NEXT.values() for cls in group}
    found = {
        cls.__name__: _link(cls, {"key_id": "$response.body#/key_id"})
        for cls in sorted(made, key=lambda cls: cls.__name__)
    }
    for cls in _ASKED:
        link = _link(cls, {"approval_id": "$response.body#/approval_id"})
        if cls in _WITH_DIGEST:
            link["requestBody"] = {"digest": "$response.body#/digest"}
        found[cls.__name__] = link
    return found


def links_of(cls: _Kind) -> dict[str, Schema]:
    """Return the links of an operation's success, by name; there may be none."""
    found = {target.__name__: _reference(target) for target in _NEXT.get(cls, ())}
    if cls in _INVERSES:
        target, fields = _INVERSES[cls]
        link = _link(target, {"key_id": "$response.body#/key_id"})
        link["requestBody"] = {
            name: f"${whose}.body#/{name}" for name, whose in fields.items()
        }
        found[target.__name__] = link
    if cls in _FIRST:
        target, field = _FIRST[cls]
        found[target.__name__] = _link(
            target, {field: f"$response.body#/items/0/{field}"}
        )
    return found


def links_of_waiting() -> dict[str, Schema]:
    """Return the links of the answer that people must agree first, by name."""
    return {target.__name__: _reference(target) for target in _ASKED}


def _link(target: _Kind, parameters: dict[str, str]) -> Schema:
    return {"operationId": target.__name__, "parameters": parameters}


def _reference(target: _Kind) -> Schema:
    return {"$ref": f"#/components/links/{target.__name__}"}
