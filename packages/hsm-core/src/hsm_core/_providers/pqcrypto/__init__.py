# SPDX-License-Identifier: MIT
"""Plug-in ``pqcrypto``: ML-KEM-512 and SLH-DSA of the wheel pqcrypto."""

from __future__ import annotations

from typing import Final

from hsm_core.protocols import CryptoProvider, ProviderPlugin


def _open() -> CryptoProvider:
    from hsm_core._providers.pqcrypto.provider import PqcryptoProvider

    return PqcryptoProvider()


PLUGIN: Final = ProviderPlugin(open=_open)
