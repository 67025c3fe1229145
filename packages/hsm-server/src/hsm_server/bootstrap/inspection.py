# SPDX-License-Identifier: MIT
"""Inspection of the key store that settings name, without opening it."""

from __future__ import annotations

from hsm_core.factory import StoreState, inspect_store

__all__ = ["StoreState", "inspect_store"]
