# SPDX-License-Identifier: MIT
"""How a policy file is read: text, tree, schema, rules. ``policies`` is its face."""

__all__: list[str] = []
