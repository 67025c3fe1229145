# SPDX-License-Identifier: MIT
"""The provider that stands on pyca/cryptography and the OpenSSL inside it."""

from hsm_core._internal.crypto.pyca.provider import PycaCryptoProvider

__all__ = ["PycaCryptoProvider"]
