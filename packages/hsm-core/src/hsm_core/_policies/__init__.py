# SPDX-License-Identifier: MIT
"""Policy file parser: text, tree, schema, rules. ``policies`` is the public module."""

__all__: list[str] = []
