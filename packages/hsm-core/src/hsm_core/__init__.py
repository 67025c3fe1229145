# SPDX-License-Identifier: MIT
"""
Embedded HSM library: keys, policy, audit log; no network.

``open()`` opens an HSM, and ``as_user()`` returns the object that makes and uses keys.
Names are loaded on first use, so the import itself is quick.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from hsm_core.__about__ import __version__

if TYPE_CHECKING:
    from hsm_core import aio
    from hsm_core.embedded import EmbeddedHSM, open
    from hsm_core.errors import (
        AccessDeniedError,
        ApprovalRequiredError,
        DecryptionError,
        HSMError,
        KeyNotFoundError,
    )
    from hsm_core.errors import SignatureMismatchError as InvalidSignature
    from hsm_core.keys import open_private_key
    from hsm_core.model import Role
    from hsm_core.settings import Settings
    from hsm_core.users import AuditReport, Key, User

__all__ = [
    "AccessDeniedError",
    "ApprovalRequiredError",
    "AuditReport",
    "DecryptionError",
    "EmbeddedHSM",
    "HSMError",
    "InvalidSignature",
    "Key",
    "KeyNotFoundError",
    "Role",
    "Settings",
    "User",
    "__version__",
    "aio",
    "open",
    "open_private_key",
]


if not TYPE_CHECKING:  # a misspelt name is an error to type checkers

    def __getattr__(name: str) -> object:
        """
        Load a public name on first use (PEP 562).

        Raises:
            AttributeError: There is no such name.
        """
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = _load(name)
        return found


def _load(name: str) -> object:
    source: ModuleType
    match name:
        case "aio":
            import hsm_core.aio

            return hsm_core.aio
        case "EmbeddedHSM" | "open":
            from hsm_core import embedded

            source = embedded
        case "AuditReport" | "Key" | "User":
            from hsm_core import users

            source = users
        case "open_private_key":
            from hsm_core import keys

            source = keys
        case "Role":
            from hsm_core import model

            source = model
        case "Settings":
            from hsm_core import settings

            source = settings
        case "InvalidSignature":
            from hsm_core.errors import SignatureMismatchError

            return SignatureMismatchError
        case _:
            from hsm_core import errors

            source = errors
    found: object = getattr(source, name)
    return found


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted({*globals(), *__all__})
