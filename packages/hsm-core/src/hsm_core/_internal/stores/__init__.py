# SPDX-License-Identifier: MIT
"""Adapters of the stores: one package per medium, each offering the stores it can."""

__all__: list[str] = []
