# SPDX-License-Identifier: MIT
"""
Operations that only the HSM itself asks for, on behalf of its schedulers.

They are values like all others, and go through pipeline, policy and trail; but no
caller can send one: they are no members of ``OPERATIONS``, so that no codec reads them,
and no role is granted them.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from hsm_core.model import KeyInfo
from hsm_core.operations import Effect, KeyReference, Operation

__all__ = ["INTERNAL_OPERATIONS", "CompleteDestruction"]


class CompleteDestruction(Operation[KeyInfo], frozen=True, kw_only=True):
    """Destroy all material of a key whose waiting time is over; see `DestroyKey`."""

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference


INTERNAL_OPERATIONS: Final[tuple[type[Operation[Any]], ...]] = (CompleteDestruction,)
"""Each has a handler, and a grant of ``system_callers.SYSTEM_GRANTS``."""
