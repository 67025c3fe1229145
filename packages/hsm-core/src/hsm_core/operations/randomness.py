# SPDX-License-Identifier: MIT
"""Random bytes."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from hsm_core.model import Record, Secret
from hsm_core.operations.base import Effect, Operation

__all__ = ["GenerateRandom", "RandomBytes"]


class RandomBytes(Record, frozen=True, kw_only=True):
    """Bytes of the operating system's generator."""

    random: Secret


class GenerateRandom(Operation[RandomBytes], frozen=True, kw_only=True):
    """Return random bytes of the operating system, 1 to 1 MiB."""

    effect: ClassVar = Effect.USE

    length: Annotated[int, Meta(ge=1, le=1_048_576)]
