# SPDX-License-Identifier: MIT
"""Execution and output of commands that create or change a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_cli.io.views import key_pairs

if TYPE_CHECKING:
    from hsm_cli.invocation import Invocation
    from hsm_core.model import KeyInfo
    from hsm_core.operations import Operation


def change_key(
    invocation: Invocation, operation: Operation[KeyInfo], idempotency_key: str | None
) -> None:
    """
    Create or change a key, and print its new metadata.

    Raises:
        HSMError: See `Invocation.execute`.
    """
    key = invocation.execute(operation, idempotency_key=idempotency_key)
    invocation.output.pairs(key, key_pairs(key))
