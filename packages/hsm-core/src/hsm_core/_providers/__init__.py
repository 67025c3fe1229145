# SPDX-License-Identifier: MIT
"""Optional providers, each a plug-in that only its entry point names."""
