# SPDX-License-Identifier: MIT
"""The composition roots: the only modules that open an HSM."""

__all__: list[str] = []
