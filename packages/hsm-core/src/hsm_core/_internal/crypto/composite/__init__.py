# SPDX-License-Identifier: MIT
"""Composite ML-KEM and composite ML-DSA, over other providers."""

from hsm_core._internal.crypto.composite.provider import CompositeProvider
from hsm_core._internal.crypto.composite.serialization import Components

__all__ = ["Components", "CompositeProvider"]
