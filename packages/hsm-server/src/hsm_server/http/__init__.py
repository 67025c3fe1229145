# SPDX-License-Identifier: MIT
"""HTTP: connections, request checks, middleware, and problem documents."""
