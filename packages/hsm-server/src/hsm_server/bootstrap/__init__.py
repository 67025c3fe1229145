# SPDX-License-Identifier: MIT
"""Composition roots: the only modules that open an HSM."""

__all__: list[str] = []
