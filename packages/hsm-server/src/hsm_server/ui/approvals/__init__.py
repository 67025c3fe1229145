# SPDX-License-Identifier: MIT
"""Approvals: what others are asked to agree to, and what they say."""

from hsm_server.ui.approvals.pages import PAGES

__all__ = ["PAGES"]
