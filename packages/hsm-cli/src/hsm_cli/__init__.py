# SPDX-License-Identifier: MIT
"""Command-line client of hsm-server, and offline audit verifier."""

from hsm_cli.__about__ import __version__

__all__ = ["__version__"]
