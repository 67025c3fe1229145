# SPDX-License-Identifier: MIT
"""Provider of pyca/cryptography and the OpenSSL inside it."""

from hsm_core._internal.crypto.pyca.provider import PycaCryptoProvider

__all__ = ["PycaCryptoProvider"]
