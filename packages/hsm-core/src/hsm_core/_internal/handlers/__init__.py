# SPDX-License-Identifier: MIT
"""Handlers of the operations, a module per subject; importing this registers all."""

from __future__ import annotations

from typing import Any

from hsm_core._internal.handlers import (  # noqa: F401 (each registers its handlers)
    approvals,
    audit,
    batches,
    certificates,
    destruction,
    encryption,
    inspection,
    key_changes,
    key_creation,
    policy,
    raw,
    service,
    signatures,
    transfer,
)
from hsm_core._internal.handlers.base import HANDLERS, AnyHandler, HandlerDependencies
from hsm_core.operations import Operation


def handler_table(
    services: HandlerDependencies,
) -> dict[type[Operation[Any]], AnyHandler[Any]]:
    """Return one handler per operation, internal ones included."""
    return {operation: cls(services) for operation, cls in HANDLERS.items()}
