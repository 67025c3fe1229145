# SPDX-License-Identifier: MIT
"""Access to the vault: authentication and rate limits before an operation runs."""
