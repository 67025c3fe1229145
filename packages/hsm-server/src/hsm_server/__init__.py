# SPDX-License-Identifier: MIT
"""HTTPS service over hsm-core."""

from hsm_server.__about__ import __version__

__all__ = ["__version__"]
