# SPDX-License-Identifier: MIT
"""Approval pages: approval requests and their decisions."""

from hsm_server.ui.approvals.pages import PAGES

__all__ = ["PAGES"]
