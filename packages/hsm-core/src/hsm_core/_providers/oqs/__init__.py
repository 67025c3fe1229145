# SPDX-License-Identifier: MIT
"""Plug-in ``oqs``: ML-KEM, ML-DSA and SLH-DSA of liboqs. Off by default."""

from __future__ import annotations

from typing import Final

from hsm_core.algorithms import Family
from hsm_core.protocols import CryptoProvider, ProviderPlugin


def _open() -> CryptoProvider:
    from hsm_core._providers.oqs.provider import OqsProvider

    return OqsProvider()


PLUGIN: Final = ProviderPlugin(
    open=_open,
    preferred=frozenset({Family.ML_KEM, Family.ML_DSA}),
    needs_enabling=True,
)
