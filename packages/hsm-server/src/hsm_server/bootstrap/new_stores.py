# SPDX-License-Identifier: MIT
"""First opening of an HSM, which creates its stores and binds them to its keys."""

from __future__ import annotations

from hsm_core.factory import open_hsm
from hsm_core.settings import Settings


def create_stores(settings: Settings, *, master_key: bytes, hmac_key: bytes) -> None:
    """
    Run the self-tests, create the stores, and close them.

    From then on, a server with another root key or audit key does not start.

    Raises:
        HSMError: See `hsm_core.factory.open_hsm`.
    """
    with open_hsm(settings, master_key=master_key, hmac_key=hmac_key):
        pass
