# SPDX-License-Identifier: MIT
"""Identities: access tokens, OpenID Connect, console sessions, and their clock."""
