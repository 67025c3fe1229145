# SPDX-License-Identifier: MIT
"""HTTP to the server: messages, TLS, one attempt of a request, server-sent events."""
