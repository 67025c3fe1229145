# SPDX-License-Identifier: MIT
"""The provider that stands on the operating system's OpenSSL, 3.5 or newer."""

from hsm_core._internal.crypto.libcrypto.provider import LibcryptoProvider

__all__ = ["LibcryptoProvider"]
