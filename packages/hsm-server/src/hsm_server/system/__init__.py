# SPDX-License-Identifier: MIT
"""Services of the operating system: sockets, sealed memory, privileges, event loops."""
