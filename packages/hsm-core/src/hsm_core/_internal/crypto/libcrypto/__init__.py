# SPDX-License-Identifier: MIT
"""Provider of the operating system's OpenSSL, 3.5 or newer."""

from hsm_core._internal.crypto.libcrypto.provider import LibcryptoProvider

__all__ = ["LibcryptoProvider"]
