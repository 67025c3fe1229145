# SPDX-License-Identifier: MIT
"""Clocks, and the guard against clocks that jump."""
