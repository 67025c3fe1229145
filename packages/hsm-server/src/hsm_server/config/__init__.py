# SPDX-License-Identifier: MIT
"""Configuration: settings, command-line options, and the plan of the processes."""
