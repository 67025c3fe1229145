# SPDX-License-Identifier: MIT
"""The audit trail: what happened, live, and whether it is whole."""

from hsm_server.ui.audit.pages import PAGES

__all__ = ["PAGES"]
