# SPDX-License-Identifier: MIT
"""The tests of all three distributions."""
