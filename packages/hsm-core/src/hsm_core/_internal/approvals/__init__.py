# SPDX-License-Identifier: MIT
"""Dual control: approval requests, decisions, signatures, and the approval workflow."""
