# SPDX-License-Identifier: MIT
"""Embedded HSM library: keys, policy, audit trail; no network."""

from hsm_core.__about__ import __version__

__all__ = ["__version__"]
