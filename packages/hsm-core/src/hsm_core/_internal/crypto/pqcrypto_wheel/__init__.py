# SPDX-License-Identifier: MIT
"""`CryptoProvider` over the wheel ``pqcrypto``, slow work in processes of its own."""

from hsm_core._internal.crypto.pqcrypto_wheel.provider import PqcryptoProvider

__all__ = ["PqcryptoProvider"]
