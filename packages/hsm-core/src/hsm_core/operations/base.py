# SPDX-License-Identifier: MIT
"""Operations: immutable requests that state their effect and result type."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Generic, TypeVar, get_args

from hsm_core.algorithms import KeyUsage
from hsm_core.model import Record

__all__ = ["Effect", "Operation", "result_type"]

R_co = TypeVar("R_co", covariant=True)


class Effect(StrEnum):
    """
    Effect of an operation, which determines its audit records.

    A mutation has an intent record and an outcome record. A use or a view has one
    record. A recovery has one record per affected key, written before it takes effect,
    and one for itself. A read of public facts has none unless it is denied. A consent
    changes an approval and has intent and outcome.
    """

    MUTATION = "mutation"
    USE = "use"
    VIEW = "view"
    RECOVERY = "recovery"
    READ = "read"
    CONSENT = "consent"


class Operation(Record, Generic[R_co], frozen=True, kw_only=True, tag=True):
    """
    Base of every operation; the type argument is the type of its result.

    Attributes:
        effect: Effect, which determines the audit records.
        usage: Required key usage, if the operation uses a key.
        other_keys: Fields with further key IDs; each is resolved and authorized like
            ``key_id``.
        while_locked: Whether a locked HSM serves the operation.
    """

    effect: ClassVar[Effect]
    usage: ClassVar[KeyUsage | None] = None
    other_keys: ClassVar[tuple[str, ...]] = ()
    while_locked: ClassVar[bool] = False


def result_type(operation: type[Operation[R_co]]) -> type[R_co]:
    """Return the type of an operation's result."""
    (base,) = operation.__orig_bases__  # type: ignore[attr-defined]
    (result,) = get_args(base)
    found: type[R_co] = result
    return found
