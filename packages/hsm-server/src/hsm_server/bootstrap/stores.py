# SPDX-License-Identifier: MIT
"""Stores without a server: inspected, or created and bound to their keys."""

from __future__ import annotations

from hsm_core.factory import StoreState, inspect_store, open_hsm
from hsm_core.settings import Settings

__all__ = ["StoreState", "create_stores", "inspect_store"]


def create_stores(settings: Settings, *, master_key: bytes, hmac_key: bytes) -> None:
    """
    Run the self-tests, create the stores, and close them.

    From then on, a server with another root key or audit key does not start.

    Raises:
        HSMError: See `hsm_core.factory.open_hsm`.
    """
    with open_hsm(settings, master_key=master_key, hmac_key=hmac_key):
        pass
