# SPDX-License-Identifier: MIT
"""Stores in SQLite databases: one file, one connection, one process."""
