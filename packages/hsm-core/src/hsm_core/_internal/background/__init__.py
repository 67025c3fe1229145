# SPDX-License-Identifier: MIT
"""Recurring work of an open HSM: rotation, destruction, pruning, backups."""
