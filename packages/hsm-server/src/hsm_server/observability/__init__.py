# SPDX-License-Identifier: MIT
"""Logs, metrics and traces of the service."""
