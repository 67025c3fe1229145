# SPDX-License-Identifier: MIT
"""Instants as templates use them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(when: datetime | None) -> int:
    """Return microseconds since 1970-01-01T00:00:00Z; 0 if unknown."""
    return 0 if when is None else (when - _EPOCH) // timedelta(microseconds=1)
