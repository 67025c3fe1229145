# SPDX-License-Identifier: MIT
"""
The key hierarchy: a root seals the key ring, the key ring seals everything else.

Each sealed blob has a key of its own, derived with a random salt, so that the limit of
AES-GCM on nonces (SP 800-38D, section 8.3) is never near. Formats:
``docs/reference/formats-keys.md``.
"""

from hsm_core._internal.sealing.ring import BlobContext, KeyRing
from hsm_core._internal.sealing.root import RootKey

__all__ = ["BlobContext", "KeyRing", "RootKey"]
