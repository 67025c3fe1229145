# SPDX-License-Identifier: MIT
"""
Sign-in by OpenID Connect.

A front end redirects users to the provider and exchanges codes. Only the vault verifies
ID tokens.
"""
