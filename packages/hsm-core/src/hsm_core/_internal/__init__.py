# SPDX-License-Identifier: MIT
"""What hsm-core keeps to itself: not public, free to change in any release."""

__all__: list[str] = []
