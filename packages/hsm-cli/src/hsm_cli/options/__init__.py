# SPDX-License-Identifier: MIT
"""Global flags, and the types of parameters."""
