# SPDX-License-Identifier: MIT
"""Input and output of commands: files, keys in files, terminal, results."""
