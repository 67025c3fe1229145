# SPDX-License-Identifier: MIT
"""Cluster: membership of its nodes, changes that they apply, and settlement."""
