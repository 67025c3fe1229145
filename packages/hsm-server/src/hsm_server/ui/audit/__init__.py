# SPDX-License-Identifier: MIT
"""Audit pages: records, live view and verification."""

from hsm_server.ui.audit.pages import PAGES

__all__ = ["PAGES"]
