# SPDX-License-Identifier: MIT
"""Policy engine: pure functions of operation, caller, key facts and time."""
