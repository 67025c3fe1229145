# SPDX-License-Identifier: MIT
"""Stores on a local file system, safe against kills and power cuts."""

__all__: list[str] = []
