# SPDX-License-Identifier: MIT
"""The tests of all four distributions."""
