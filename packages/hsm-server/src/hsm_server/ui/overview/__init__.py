# SPDX-License-Identifier: MIT
"""The first page: how the HSM is, at a glance, and as it changes."""

from hsm_server.ui.overview.pages import PAGES
from hsm_server.ui.overview.pulse import PULSE, Pulse

__all__ = ["PAGES", "PULSE", "Pulse"]
