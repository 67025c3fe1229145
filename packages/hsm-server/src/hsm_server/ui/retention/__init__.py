# SPDX-License-Identifier: MIT
"""Retention: what is due when, what is kept back, and the ledger of purges."""

from hsm_server.ui.retention.pages import PAGES

__all__ = ["PAGES"]
