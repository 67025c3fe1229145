# SPDX-License-Identifier: MIT
"""Audit log independent of its storage: records, chain, head mark and verification."""

__all__: list[str] = []
