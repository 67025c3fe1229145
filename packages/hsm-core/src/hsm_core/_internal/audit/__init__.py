# SPDX-License-Identifier: MIT
"""The audit trail without its medium: records, chain, head mark and verification."""

__all__: list[str] = []
