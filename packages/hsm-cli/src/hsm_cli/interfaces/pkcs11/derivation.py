# SPDX-License-Identifier: MIT
"""Derivation of keys by ECDH."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.creation import Creation, creation
from hsm_cli.interfaces.pkcs11.errors import CryptokiError
from hsm_cli.interfaces.pkcs11.generation import (
    added,
    require,
    require_key_type,
    secret_algorithm,
)
from hsm_cli.interfaces.pkcs11.objects import require_no_login
from hsm_cli.interfaces.pkcs11.parameters import ECDHParameters
from hsm_cli.interfaces.pkcs11.public_parts import OCTET_STRING, curve_of, der
from hsm_core.algorithms import (
    Algorithm,
    AlgorithmSpec,
    DerivationFunction,
    Family,
    HashAlgorithm,
)
from hsm_core.errors import InvalidInputError
from hsm_core.operations import DeriveKey, DescribeKey

if TYPE_CHECKING:
    from hsm_cli.interfaces.pkcs11.objects import KeyObject
    from hsm_cli.interfaces.pkcs11.parameters import Mechanism
    from hsm_cli.interfaces.pkcs11.sessions import Session
    from hsm_cli.interfaces.pkcs11.wire import Template

_FUNCTIONS: Final = {
    ck.CKD_NULL: (DerivationFunction.NONE, None),
    ck.CKD_SHA256_KDF: (DerivationFunction.X963, HashAlgorithm.SHA_256),
    ck.CKD_SHA384_KDF: (DerivationFunction.X963, HashAlgorithm.SHA_384),
    ck.CKD_SHA512_KDF: (DerivationFunction.X963, HashAlgorithm.SHA_512),
}
_AGREEING: Final = frozenset({Family.ECDSA, Family.ECDH})


def derive_key(
    session: Session, mechanism: Mechanism | None, handle: int, found: Template
) -> int:
    """Derive a secret key from a private key and the public key of another."""
    if mechanism is None:
        raise CryptokiError(ck.CKR_ARGUMENTS_BAD)
    if mechanism.kind != ck.CKM_ECDH1_DERIVE:
        raise CryptokiError(ck.CKR_MECHANISM_INVALID)
    base = session.key(handle)
    if base.object_class != ck.CKO_PRIVATE_KEY or not _agrees(base.spec):
        raise CryptokiError(ck.CKR_KEY_TYPE_INCONSISTENT)
    parameter = mechanism.parameter
    if not isinstance(parameter, ECDHParameters) or parameter.kdf not in _FUNCTIONS:
        raise CryptokiError(
            ck.CKR_MECHANISM_PARAM_INVALID,
            "ECDH needs CKD_NULL, CKD_SHA256_KDF, CKD_SHA384_KDF or CKD_SHA512_KDF.",
        )
    function, hashed = _FUNCTIONS[parameter.kdf]
    if function is DerivationFunction.NONE and parameter.shared:
        raise CryptokiError(ck.CKR_MECHANISM_PARAM_INVALID)
    peer = _public_key(base.spec, parameter.public)
    base.require_usage(ck.CKA_DERIVE)
    base.require_mechanism(mechanism.kind)
    require_no_login(base)
    algorithm, wanted = _wanted(session, base, function, found)
    _require_current(session, base)
    operation = DeriveKey(
        algorithm=algorithm,
        base_key_id=base.key_id,
        peer_public_key=peer,
        function=function,
        hash=hashed,
        info=parameter.shared,
    )
    try:
        (derived,) = added(session, wanted, operation)
    except InvalidInputError as error:
        if error.facts.get("field") != "peer_public_key":
            raise
        raise CryptokiError(ck.CKR_MECHANISM_PARAM_INVALID, str(error)) from None
    try:
        _require_current(session, base)
    except CryptokiError:
        session.application.inventory.destroy(derived)
        raise
    return derived.handle


def _require_current(session: Session, base: KeyObject) -> None:
    """Check that the HSM, which derives from the current version, takes this one."""
    base.require_version(session.hsm.execute(DescribeKey(key_id=base.key_id)).version)


def derive_key_2(
    session: Session, mechanism: Mechanism | None, handle: int, found: Template
) -> tuple[int, Mechanism | None, int]:
    """Do the same for a client that reads a return value and a parameter, too."""
    return ck.CKR_OK, mechanism, derive_key(session, mechanism, handle, found)


def _wanted(
    session: Session, base: KeyObject, function: DerivationFunction, found: Template
) -> tuple[Algorithm, Creation]:
    """Return the algorithm of the new key, and what else its template says of it."""
    require(found, ck.CKA_CLASS, ck.CKO_SECRET_KEY)
    wanted = creation(ck.CKO_SECRET_KEY, found)
    session.require_user()
    if wanted.is_token:
        session.require_writable()
    length = found.get(ck.CKA_VALUE_LEN)
    if length is None and function is DerivationFunction.NONE:
        length = base.spec.shared_secret_bytes
    key_type = require_key_type(found)
    return secret_algorithm(key_type, length, wanted), wanted


def _agrees(row: AlgorithmSpec) -> bool:
    return row.family in _AGREEING and bool(row.shared_secret_bytes)


def _public_key(row: AlgorithmSpec, given: bytes) -> bytes:
    """
    Return a public key as SubjectPublicKeyInfo.

    Args:
        row: Algorithm of the base key.

        given: Its point or coordinate, bare or as a DER OCTET STRING.

    Raises:
        CryptokiError: It is none on this curve.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, x25519
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    bare = given[-row.public_bytes :]
    if given == der(OCTET_STRING, bare):
        given = bare
    key: ec.EllipticCurvePublicKey | x25519.X25519PublicKey
    try:
        if row.family is Family.ECDH:
            key = x25519.X25519PublicKey.from_public_bytes(given)
        else:
            curve = curve_of(row.algorithm)
            key = ec.EllipticCurvePublicKey.from_encoded_point(curve, given)
    except ValueError:
        raise CryptokiError(
            ck.CKR_MECHANISM_PARAM_INVALID,
            "The public key is not a point on this curve.",
        ) from None
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "C_DeriveKey": derive_key,
    "C_DeriveKey2": derive_key_2,
}
"""Functions by name."""
