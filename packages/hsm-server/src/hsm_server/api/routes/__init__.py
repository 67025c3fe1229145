# SPDX-License-Identifier: MIT
"""Handlers of requests: a few lines each."""

__all__: list[str] = []
