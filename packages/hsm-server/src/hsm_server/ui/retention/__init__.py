# SPDX-License-Identifier: MIT
"""Retention pages: purge queue, legal holds and retention ledger."""

from hsm_server.ui.retention.pages import PAGES

__all__ = ["PAGES"]
