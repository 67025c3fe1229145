# SPDX-License-Identifier: MIT
"""Small tools without a subject of their own: bytes, caches, locks, randomness."""
