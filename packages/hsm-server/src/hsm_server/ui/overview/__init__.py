# SPDX-License-Identifier: MIT
"""Overview page: health, open approval requests and live figures."""

from hsm_server.ui.overview.pages import PAGES
from hsm_server.ui.overview.sampler import SAMPLER, FigureSampler

__all__ = ["PAGES", "SAMPLER", "FigureSampler"]
