# SPDX-License-Identifier: MIT
"""
Openers of stores that other distributions offer, found by name.

Only the requested one is loaded. A scheme that two distributions offer is refused as
ambiguous.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from hsm_core._internal.lib.plugins import load_plugin, plugin_names
from hsm_core.errors import ConfigurationError, HSMError, StoreUnavailableError

APPROVAL_STORES: Final = "hsm_core.approval_stores"
KEY_STORES: Final = "hsm_core.key_stores"
VAULTS: Final = "hsm_core.vaults"

_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{0,63}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Opener:
    """
    Opener of one scheme.

    Attributes:
        group: Where it was found.
        scheme: Its name.
        field: The setting that asked for it.
    """

    group: str
    scheme: str
    field: str
    _load: object

    def open(self, location: str, kind: type[T]) -> T:
        """
        Open what lies at a place.

        Raises:
            ConfigurationError: It is nothing that opens a *kind*.
            StoreUnavailableError: It failed in a way that is not documented.
        """
        if not callable(self._load):
            raise self._wrong()
        try:
            opened: object = self._load(location)
        except HSMError:
            raise
        except (Exception, SystemExit) as error:
            raise StoreUnavailableError(
                f"{self.field}: the opener of {self.scheme}: failed "
                f"({type(error).__name__})."
            ) from error
        if not isinstance(opened, kind):
            raise self._wrong()
        return opened

    def _wrong(self) -> ConfigurationError:
        return ConfigurationError(
            f"{self.field}: the entry point {self.scheme} did not return an "
            f"object of the group {self.group}.",
            field=self.field,
        )


def find_opener(
    groups: Iterable[str], scheme: str, *, field: str, known: Iterable[str]
) -> Opener:
    """
    Load what opens a scheme.

    Args:
        groups: Where it may be offered.

        scheme: Name of the entry point.

        field: The setting that asks for it.

        known: What there is besides, for the error.

    Raises:
        ConfigurationError: Nobody offers it, several distributions do, or it can't be
            loaded.
    """
    groups = tuple(groups)
    loaded = None
    if _SCHEME.fullmatch(scheme):
        loaded = load_plugin(groups, scheme, field=field, noun="scheme")
    if loaded is None:
        available = ", ".join(sorted({*known, *plugin_names(groups)}))
        raise ConfigurationError(
            f"{field}: unknown scheme {scheme[:64]!r}. Available: {available}.",
            field=field,
        )
    return Opener(loaded[0], scheme, field, loaded[1])
