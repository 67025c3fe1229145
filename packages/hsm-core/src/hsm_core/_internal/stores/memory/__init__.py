# SPDX-License-Identifier: MIT
"""In-memory stores, for tests and evaluation."""

__all__: list[str] = []
