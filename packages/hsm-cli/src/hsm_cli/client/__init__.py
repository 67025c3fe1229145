# SPDX-License-Identifier: MIT
"""
Client library of a remote HSM: `RemoteHSM` implements `hsm_core.protocols.HSM`.

Public, like the modules of hsm-core. The package depends on nothing else of hsm-cli.
Names are loaded on first use, because the HTTP library makes up most of the start-up
time of a command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hsm_cli.client.remote import RemoteHSM, new_idempotency_key

__all__ = ["RemoteHSM", "new_idempotency_key"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hsm_cli.client import remote

    return getattr(remote, name)
