# SPDX-License-Identifier: MIT
"""
Keys of an HSM as private keys of the package ``cryptography``.

Use them wherever ``cryptography`` takes a private key: certificates, requests and
revocation lists of ``cryptography.x509``, CMS, SSH certificates, JSON Web Tokens. The
key stays in the HSM. Signing calls the HSM, embedded or remote, and raises its errors.
"""

from hsm_core.keys._private_keys import (
    HSMEd448Key,
    HSMEd25519Key,
    HSMEllipticCurveKey,
    HSMMLDSA44Key,
    HSMMLDSA65Key,
    HSMMLDSA87Key,
    HSMRSAKey,
    PrivateKey,
    open_private_key,
)

__all__ = [
    "HSMEd448Key",
    "HSMEd25519Key",
    "HSMEllipticCurveKey",
    "HSMMLDSA44Key",
    "HSMMLDSA65Key",
    "HSMMLDSA87Key",
    "HSMRSAKey",
    "PrivateKey",
    "open_private_key",
]
