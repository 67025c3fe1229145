# SPDX-License-Identifier: MIT
"""`CryptoProvider` over liboqs, which is looked for before its binding is imported."""

from hsm_core._internal.crypto.oqs.provider import OqsProvider

__all__ = ["OqsProvider"]
