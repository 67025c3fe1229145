# SPDX-License-Identifier: MIT
"""The implementation of `hsm_core.primitives`, a module per family."""

__all__: list[str] = []
