# SPDX-License-Identifier: MIT
"""Providers of algorithms, and the registry that tests and chooses them."""

__all__: list[str] = []
