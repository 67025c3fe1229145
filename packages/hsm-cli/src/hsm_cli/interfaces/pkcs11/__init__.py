# SPDX-License-Identifier: MIT
"""PKCS#11 interface, spoken to by p11-kit's client module over its RPC protocol."""
