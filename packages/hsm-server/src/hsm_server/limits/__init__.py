# SPDX-License-Identifier: MIT
"""
Limits per caller and address: rate limits, lockouts, address attribution.

All state is bounded, in memory, on monotonic time, and lost on a restart.
"""
