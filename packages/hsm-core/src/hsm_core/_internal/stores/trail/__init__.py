# SPDX-License-Identifier: MIT
"""A trail over any medium: gathering, writing in groups, healing after a failure."""

__all__: list[str] = []
