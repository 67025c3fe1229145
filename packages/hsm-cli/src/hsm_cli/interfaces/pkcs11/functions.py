# SPDX-License-Identifier: MIT
"""All functions of the interface, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from hsm_cli.interfaces.pkcs11 import finding, general, mechanisms

FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    **general.FUNCTIONS,
    **finding.FUNCTIONS,
    **mechanisms.FUNCTIONS,
}
"""Functions by name; a call that is not here is not supported."""
