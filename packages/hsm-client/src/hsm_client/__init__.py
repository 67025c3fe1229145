# SPDX-License-Identifier: MIT
"""
Client of a server: `RemoteHSM` implements `hsm_core.protocols.HSM`.

Names are loaded on first use, because the HTTP library makes up most of the start-up
time of a command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hsm_client.exchange import new_idempotency_key
    from hsm_client.remote import RemoteHSM

from hsm_client.__about__ import __version__

__all__ = ["RemoteHSM", "__version__", "new_idempotency_key"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hsm_client import exchange, remote

    return getattr(remote if hasattr(remote, name) else exchange, name)
