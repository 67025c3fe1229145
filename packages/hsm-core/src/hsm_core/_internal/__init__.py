# SPDX-License-Identifier: MIT
"""Internal modules of hsm-core: not public, free to change in any release."""

__all__: list[str] = []
