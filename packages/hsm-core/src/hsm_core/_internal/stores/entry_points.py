# SPDX-License-Identifier: MIT
"""
Openers of stores that other distributions offer, found by name.

Only the one that is asked for is loaded. A scheme that two distributions offer is
refused, since nobody can say which of them is meant.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from hsm_core.errors import ConfigurationError

__all__ = ["KEY_STORES", "VAULTS", "find_opener", "schemes"]

KEY_STORES: Final = "hsm_core.key_stores"
VAULTS: Final = "hsm_core.vaults"


def schemes(groups: Iterable[str]) -> set[str]:
    """Return the schemes that installed distributions offer."""
    return {found.name for group in groups for found in entry_points(group=group)}


def find_opener(
    groups: Iterable[str], scheme: str, *, field: str
) -> tuple[str, object] | None:
    """
    Load what opens a scheme, or return None if there is nothing.

    Args:
        groups: Where it may be offered.

        scheme: Name of the entry point.

        field: The setting that asks for it.

    Returns:
        The group, and what was loaded from it.

    Raises:
        ConfigurationError: Several distributions offer it, or it can't be loaded.
    """
    found = [
        (group, point)
        for group in groups
        for point in entry_points(group=group, name=scheme)
    ]
    if not found:
        return None
    if len(found) > 1:
        offers = " and ".join(sorted({_offered_by(point) for _, point in found}))
        raise ConfigurationError(
            f"{field}: the scheme {scheme} is offered more than once, by {offers}.",
            field=field,
        )
    group, point = found[0]
    try:
        return group, point.load()
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"{field}: the entry point {scheme} of {_offered_by(point)} can't be "
            f"loaded ({type(error).__name__}).",
            field=field,
        ) from error


def _offered_by(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
