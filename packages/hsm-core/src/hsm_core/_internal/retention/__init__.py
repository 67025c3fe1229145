# SPDX-License-Identifier: MIT
"""Retention of key versions: sweeps, purges, and the retention ledger."""
