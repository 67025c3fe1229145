# SPDX-License-Identifier: MIT
"""Composition roots: the only package that opens an HSM."""
