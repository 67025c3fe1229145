# SPDX-License-Identifier: MIT
"""
Sign-in by a provider of OpenID Connect.

A front end sends people there and exchanges what they come back with; the vault alone
says whom an ID token names.
"""
