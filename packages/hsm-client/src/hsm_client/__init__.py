# SPDX-License-Identifier: MIT
"""
Client of a server: `connect` returns its HSM with keys as objects.

Names are loaded on first use, because the HTTP library makes up most of the start-up
time of a command.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from hsm_client.__about__ import __version__

if TYPE_CHECKING:
    from hsm_client import aio
    from hsm_client.connection import Connection, connect
    from hsm_client.exchange import new_idempotency_key
    from hsm_client.remote import RemoteHSM
    from hsm_client.waiting import ApprovalEndedError
    from hsm_core import (
        ApprovalRequiredError,
        HSMError,
        InvalidSignature,
        Key,
        open_private_key,
    )

__all__ = [
    "ApprovalEndedError",
    "ApprovalRequiredError",
    "Connection",
    "HSMError",
    "InvalidSignature",
    "Key",
    "RemoteHSM",
    "__version__",
    "aio",
    "connect",
    "new_idempotency_key",
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
            import hsm_client.aio

            return hsm_client.aio
        case "Connection" | "connect":
            from hsm_client import connection

            source = connection
        case "RemoteHSM":
            from hsm_client import remote

            source = remote
        case "new_idempotency_key":
            from hsm_client import exchange

            source = exchange
        case "ApprovalEndedError":
            from hsm_client import waiting

            source = waiting
        case _:
            import hsm_core

            source = hsm_core
    found: object = getattr(source, name)
    return found


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted({*globals(), *__all__})
