# SPDX-License-Identifier: MIT
"""Composite ML-KEM and composite ML-DSA, made of what other providers serve."""

from hsm_core._internal.crypto.composite.components import Components
from hsm_core._internal.crypto.composite.provider import CompositeProvider

__all__ = ["Components", "CompositeProvider"]
