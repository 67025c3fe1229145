# SPDX-License-Identifier: MIT
"""Input and output of commands: files, keys at hand, tables, results, progress."""
