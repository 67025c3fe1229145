# SPDX-License-Identifier: MIT
"""Stores in a PostgreSQL database that several nodes share."""
