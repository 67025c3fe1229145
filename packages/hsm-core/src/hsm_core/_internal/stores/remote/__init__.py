# SPDX-License-Identifier: MIT
"""Stores whose bytes lie in a remote vault."""

__all__: list[str] = []
