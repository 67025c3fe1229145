# SPDX-License-Identifier: MIT
"""What every operation is: a value that knows its effect and the type of its result."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Generic, TypeVar, get_args

from hsm_core.algorithms import KeyUsage
from hsm_core.model import Record

__all__ = ["Effect", "Operation", "result_type"]

R_co = TypeVar("R_co", covariant=True)


class Effect(StrEnum):
    """
    What an operation does to the world, which decides how it is recorded.

    A mutation has intent and outcome; a use and a view have one record; a recovery has
    one for each key that it is about, before it takes effect, and one for itself; a
    read of public facts has none unless it is refused. A consent changes an approval;
    it has intent and outcome, too.
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
        effect: How it is recorded.
        usage: What the key must be made for, if it uses one.
        other_keys: Fields that name further keys; each is resolved and authorised as
            ``key_id`` is.
        while_locked: Whether a locked HSM serves it too.
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
