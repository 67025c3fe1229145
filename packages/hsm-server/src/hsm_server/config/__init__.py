# SPDX-License-Identifier: MIT
"""Configuration: settings, the command line, and the plan of the processes."""
