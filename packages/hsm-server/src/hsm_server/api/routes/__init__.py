# SPDX-License-Identifier: MIT
"""Request handlers of a few lines each."""

__all__: list[str] = []
