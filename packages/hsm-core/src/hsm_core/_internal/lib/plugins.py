# SPDX-License-Identifier: MIT
"""Plug-ins of other distributions, found by the name of their entry point."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hsm_core.errors import ConfigurationError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def load_plugin(
    groups: Iterable[str], name: str, *, field: str, noun: str
) -> tuple[str, object] | None:
    """
    Load an entry point, and no other.

    Args:
        groups: Groups that may offer it.

        name: Name of the entry point.

        field: Setting that names it.

        noun: The plug-in's kind, for errors.

    Returns:
        Its group and its object; None if no package offers the name.

    Raises:
        ConfigurationError: Several packages offer the name, or it can't be loaded.
    """
    # It loads twenty modules, which programs without plug-ins never need.
    from importlib.metadata import entry_points

    found = [
        (group, point)
        for group in groups
        for point in entry_points(group=group, name=name)
    ]
    if not found:
        return None
    if len(found) > 1:
        offers = " and ".join(sorted({_package(point) for _, point in found}))
        raise ConfigurationError(
            f"{field}: more than one package offers the {noun} {name}: {offers}.",
            field=field,
        )
    group, point = found[0]
    try:
        return group, point.load()
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"{field}: the entry point {name} of {_package(point)} can't be "
            f"loaded ({type(error).__name__}).",
            field=field,
        ) from error


def plugin_names(groups: Iterable[str]) -> set[str]:
    """Return the names that installed packages offer."""
    from importlib.metadata import entry_points

    return {point.name for group in groups for point in entry_points(group=group)}


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
