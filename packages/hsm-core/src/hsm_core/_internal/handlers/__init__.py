# SPDX-License-Identifier: MIT
"""Handlers of the operations, one module per context."""

from __future__ import annotations

from typing import Any

from hsm_core._internal.handlers import (
    approvals,
    audit,
    batches,
    destruction,
    encapsulation,
    encryption,
    inspection,
    key_changes,
    key_creation,
    macs,
    policy,
    retention,
    service,
    signatures,
    transfer,
)
from hsm_core._internal.handlers.base import HANDLERS, AnyHandler, HandlerDependencies
from hsm_core.operations import Operation

__all__ = [
    "approvals",
    "audit",
    "batches",
    "destruction",
    "encapsulation",
    "encryption",
    "handler_table",
    "inspection",
    "key_changes",
    "key_creation",
    "macs",
    "policy",
    "retention",
    "service",
    "signatures",
    "transfer",
]


def handler_table(
    services: HandlerDependencies,
) -> dict[type[Operation[Any]], AnyHandler[Any]]:
    """Return one handler per operation, internal ones included."""
    return {operation: cls(services) for operation, cls in HANDLERS.items()}
