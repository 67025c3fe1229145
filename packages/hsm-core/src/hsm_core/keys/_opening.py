# SPDX-License-Identifier: MIT
"""From the name of a key to the object that libraries take."""

from __future__ import annotations

from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsm_core import operations as ops
from hsm_core.algorithms import Family, spec
from hsm_core.errors import UnsupportedOperationError
from hsm_core.keys.edwards import HSMEd448Key, HSMEd25519Key
from hsm_core.keys.elliptic import HSMEllipticCurveKey
from hsm_core.keys.lattice import HSMMLDSA44Key, HSMMLDSA65Key, HSMMLDSA87Key
from hsm_core.keys.rsa import HSMRSAKey
from hsm_core.protocols import HSM

__all__ = ["PrivateKey", "open_private_key"]

PrivateKey: TypeAlias = (
    HSMRSAKey
    | HSMEllipticCurveKey
    | HSMEd25519Key
    | HSMEd448Key
    | HSMMLDSA44Key
    | HSMMLDSA65Key
    | HSMMLDSA87Key
)
"""Any key object."""

_FAMILIES: Final = frozenset({Family.RSA, Family.ECDSA, Family.EDDSA, Family.ML_DSA})


def open_private_key(hsm: HSM, key_id: str, *, approval_id: str = "") -> PrivateKey:
    """
    Return a key of the HSM as a private key of ``cryptography``.

    It stands for the version that is current now; after a rotation it signs no more.

    Args:
        hsm: Embedded or remote, for the caller who uses the key.

        key_id: Id or name.

        approval_id: The approval that each use is done under, if policy demands one.

    Raises:
        UnsupportedOperationError: There is no such object of its algorithm: for
            SLH-DSA, composites and whatever makes no signatures.
        HSMError: See `GetPublicKey`.
    """
    shown = hsm.execute(ops.GetPublicKey(key_id=key_id))
    if spec(shown.algorithm).family not in _FAMILIES:
        raise _no_such_keys(shown)
    public = load_der_public_key(shown.der)
    match public:
        case rsa.RSAPublicKey():
            return HSMRSAKey(hsm, shown, public, approval_id=approval_id)
        case ec.EllipticCurvePublicKey():
            return HSMEllipticCurveKey(hsm, shown, public, approval_id=approval_id)
        case ed25519.Ed25519PublicKey():
            return HSMEd25519Key(hsm, shown, public, approval_id=approval_id)
        case ed448.Ed448PublicKey():
            return HSMEd448Key(hsm, shown, public, approval_id=approval_id)
        case mldsa.MLDSA44PublicKey():
            return HSMMLDSA44Key(hsm, shown, public, approval_id=approval_id)
        case mldsa.MLDSA65PublicKey():
            return HSMMLDSA65Key(hsm, shown, public, approval_id=approval_id)
        case mldsa.MLDSA87PublicKey():
            return HSMMLDSA87Key(hsm, shown, public, approval_id=approval_id)
        case _:
            raise _no_such_keys(shown)


def _no_such_keys(shown: ops.PublicKey) -> UnsupportedOperationError:
    return UnsupportedOperationError(
        f"The cryptography package has no signing keys for {shown.algorithm}.",
        field="key_id",
    )
