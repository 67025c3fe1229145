# SPDX-License-Identifier: MIT
"""pkcs11-check, the conformance suite of others, run over the PKCS#11 interface."""
