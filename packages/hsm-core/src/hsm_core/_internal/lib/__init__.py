# SPDX-License-Identifier: MIT
"""Shared helpers: encodings, caches, threads, randomness, failpoints, plug-ins."""
