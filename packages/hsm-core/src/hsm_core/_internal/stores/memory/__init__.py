# SPDX-License-Identifier: MIT
"""Stores that live in this process and die with it, for tests and for trying out."""

__all__: list[str] = []
