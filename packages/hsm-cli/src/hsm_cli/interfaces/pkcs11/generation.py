# SPDX-License-Identifier: MIT
"""Generation of keys and key pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.creation import Creation, creation
from hsm_cli.interfaces.pkcs11.errors import CryptokiError
from hsm_cli.interfaces.pkcs11.public_parts import PARAMETER_SETS, ec_params
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family, KeyUsage
from hsm_core.errors import InvalidInputError, NameTakenError
from hsm_core.operations import CreateKey, DeriveKey, ImportKey

if TYPE_CHECKING:
    from hsm_cli.interfaces.pkcs11.objects import KeyObject
    from hsm_cli.interfaces.pkcs11.parameters import Mechanism
    from hsm_cli.interfaces.pkcs11.sessions import Session
    from hsm_cli.interfaces.pkcs11.wire import Template
    from hsm_core.model import KeyInfo

PUBLIC_EXPONENT: Final = 65537
"""Exponent of every RSA key."""

_WRAPPING: Final = frozenset({KeyUsage.WRAP, KeyUsage.UNWRAP})
_PAIRS: Final = {
    ck.CKM_RSA_PKCS_KEY_PAIR_GEN: (Family.RSA, ck.CKK_RSA),
    ck.CKM_EC_KEY_PAIR_GEN: (Family.ECDSA, ck.CKK_EC),
    ck.CKM_EC_EDWARDS_KEY_PAIR_GEN: (Family.EDDSA, ck.CKK_EC_EDWARDS),
    ck.CKM_EC_MONTGOMERY_KEY_PAIR_GEN: (Family.ECDH, ck.CKK_EC_MONTGOMERY),
    ck.CKM_ML_KEM_KEY_PAIR_GEN: (Family.ML_KEM, ck.CKK_ML_KEM),
    ck.CKM_ML_DSA_KEY_PAIR_GEN: (Family.ML_DSA, ck.CKK_ML_DSA),
    ck.CKM_SLH_DSA_KEY_PAIR_GEN: (Family.SLH_DSA, ck.CKK_SLH_DSA),
}
_MODULI: Final = {
    row.modulus_bits: row.algorithm for row in ALGORITHMS.values() if row.modulus_bits
}
_CURVES: Final = {
    ec_params(row): row
    for row in ALGORITHMS.values()
    if row.family in {Family.ECDSA, Family.EDDSA, Family.ECDH}
}
_CURVE_NAMES: Final = {
    b"\x13\x0cedwards25519": Algorithm.ED25519,
    b"\x13\x0aedwards448": Algorithm.ED448,
    b"\x13\x0acurve25519": Algorithm.X25519,
}
"""Curves by PrintableString, as older programs name them (PKCS#11 3.0, 2.3.5)."""


def generate_key_pair(
    session: Session, mechanism: Mechanism | None, public: Template, private: Template
) -> tuple[int, int]:
    """Generate a key pair; the handles are those of the public and the private key."""
    kind = _kind_of(mechanism)
    if kind not in _PAIRS:
        raise CryptokiError(ck.CKR_MECHANISM_INVALID)
    family, key_type = _PAIRS[kind]
    require(public, ck.CKA_CLASS, ck.CKO_PUBLIC_KEY)
    require(private, ck.CKA_CLASS, ck.CKO_PRIVATE_KEY)
    require(public, ck.CKA_KEY_TYPE, key_type)
    require(private, ck.CKA_KEY_TYPE, key_type)
    algorithm = algorithm_of_pair(family, {**private, **public})
    made = create(session, algorithm, creation(ck.CKO_PRIVATE_KEY, private, public))
    return (
        next(one.handle for one in made if one.object_class == ck.CKO_PUBLIC_KEY),
        next(one.handle for one in made if one.object_class == ck.CKO_PRIVATE_KEY),
    )


def generate_key(session: Session, mechanism: Mechanism | None, found: Template) -> int:
    """Generate a secret key."""
    kind = _kind_of(mechanism)
    if kind not in SECRET_GENERATORS:
        raise CryptokiError(ck.CKR_MECHANISM_INVALID)
    require(found, ck.CKA_CLASS, ck.CKO_SECRET_KEY)
    types = SECRET_GENERATORS[kind]
    key_type = found.get(ck.CKA_KEY_TYPE, types[0])
    if key_type not in types:
        raise CryptokiError(ck.CKR_TEMPLATE_INCONSISTENT)
    wanted = creation(ck.CKO_SECRET_KEY, {**found, ck.CKA_KEY_TYPE: key_type})
    algorithm = secret_algorithm(key_type, found.get(ck.CKA_VALUE_LEN), wanted)
    return create(session, algorithm, wanted)[0].handle


SECRET_GENERATORS: Final = {
    ck.CKM_AES_KEY_GEN: (ck.CKK_AES,),
    ck.CKM_GENERIC_SECRET_KEY_GEN: (
        ck.CKK_GENERIC_SECRET,
        ck.CKK_SHA256_HMAC,
        ck.CKK_SHA384_HMAC,
        ck.CKK_SHA512_HMAC,
        ck.CKK_HKDF,
    ),
    ck.CKM_HKDF_KEY_GEN: (ck.CKK_HKDF,),
}
"""Types of secret keys by mechanism, the default first."""


def create(
    session: Session, algorithm: Algorithm, wanted: Creation
) -> tuple[KeyObject, ...]:
    """
    Create a key in the HSM.

    Raises:
        CryptokiError: The session may not, or the key would have no usage.
    """
    session.require_user()
    if wanted.is_token:
        session.require_writable()
    return added(session, wanted, CreateKey(algorithm=algorithm))


def _fitting(algorithm: Algorithm, wanted: Creation) -> Creation:
    """Return usages for a template that names none, without those that it denies."""
    row = ALGORITHMS[algorithm]
    usual = row.default_usages
    if row.family is Family.MAC:
        wanted = msgspec.structs.replace(wanted, tags=wanted.tags + wanted.one_way)
    if wanted.usages or not wanted.denied & usual:
        return wanted
    left = usual - wanted.denied
    if not left:
        raise CryptokiError(
            ck.CKR_TEMPLATE_INCONSISTENT, "A key must have a usage, such as CKA_SIGN."
        )
    return msgspec.structs.replace(wanted, usages=tuple(sorted(left)))


def added(
    session: Session, wanted: Creation, operation: CreateKey | DeriveKey | ImportKey
) -> tuple[KeyObject, ...]:
    """
    Make a key, without its name if that is taken, and return its objects.

    Args:
        session: The session.

        wanted: Name, tags, usages and whether it may be exported.

        operation: Makes it; without what *wanted* says.

    Raises:
        CryptokiError: It would have no usage, they can't be combined, or the algorithm
            has them not.
    """

    def make(wanted: Creation) -> KeyInfo:
        return session.hsm.execute(
            msgspec.structs.replace(
                operation,
                name=wanted.name,
                tags=wanted.tags,
                usages=wanted.usages,
                exportable=wanted.exportable,
            )
        )

    wanted = _fitting(Algorithm(operation.algorithm), wanted)
    try:
        info = make(wanted)
    except NameTakenError:
        info = make(wanted.unnamed())
    except InvalidInputError as error:
        if error.facts.get("field") != "usages":
            raise
        raise CryptokiError(ck.CKR_TEMPLATE_INCONSISTENT, str(error)) from None
    session.application.note(wanted.note)
    inventory = session.application.inventory
    return inventory.add_key(info, session, is_token=wanted.is_token)


def secret_algorithm(key_type: int, length: object, wanted: Creation) -> Algorithm:
    """
    Return the algorithm of a secret key.

    Args:
        key_type: CKK_….

        length: CKA_VALUE_LEN of the template; None if it has none.

        wanted: Its usages decide between encryption and wrapping, HMAC and derivation.

    Raises:
        CryptokiError: There is no such key.
    """
    usages = frozenset(wanted.usages)
    if key_type == ck.CKK_AES:
        if length is None:
            raise CryptokiError(ck.CKR_TEMPLATE_INCOMPLETE, "CKA_VALUE_LEN is missing.")
        family = Family.KEY_WRAP if usages and usages <= _WRAPPING else Family.AES
    elif key_type == ck.CKK_HKDF or KeyUsage.DERIVE in usages:
        family = Family.KDF
    else:
        family = Family.MAC
    hashed = _HMAC_BYTES.get(key_type, length)
    for row in ALGORITHMS.values():
        if (
            row.family is family
            and row.key_bytes == hashed
            and length in {None, hashed}
        ):
            return row.algorithm
    sizes = sorted(r.key_bytes for r in ALGORITHMS.values() if r.family is family)
    raise CryptokiError(
        ck.CKR_KEY_SIZE_RANGE,
        f"CKA_VALUE_LEN of {family} must be one of {sizes}, got {length}.",
    )


_HMAC_BYTES: Final[dict[int, object]] = {
    ck.CKK_SHA256_HMAC: 32,
    ck.CKK_SHA384_HMAC: 48,
    ck.CKK_SHA512_HMAC: 64,
}


def require(found: Template, kind: int, value: int) -> None:
    """
    Check that an attribute has a value, if it is there.

    Raises:
        CryptokiError: It has another.
    """
    if found.get(kind, value) != value:
        raise CryptokiError(ck.CKR_TEMPLATE_INCONSISTENT)


def _kind_of(mechanism: Mechanism | None) -> int:
    if mechanism is None:
        raise CryptokiError(ck.CKR_ARGUMENTS_BAD)
    return mechanism.kind


def require_key_type(found: Template) -> int:
    """
    Return the type of a key that comes by its value, or wrapped.

    Raises:
        CryptokiError: The template has none.
    """
    value = found.get(ck.CKA_KEY_TYPE)
    if not isinstance(value, int):
        raise CryptokiError(ck.CKR_TEMPLATE_INCOMPLETE, "CKA_KEY_TYPE is missing.")
    return value


def algorithm_of_pair(family: Family, found: Template) -> Algorithm:
    """
    Return the algorithm of a key pair.

    Raises:
        CryptokiError: The template does not say which, or there is none.
    """
    if family is Family.RSA:
        return _rsa(found)
    if family in {Family.ECDSA, Family.EDDSA, Family.ECDH}:
        return _curve(family, found)
    wanted = found.get(ck.CKA_PARAMETER_SET)
    if wanted is None:
        raise CryptokiError(ck.CKR_TEMPLATE_INCOMPLETE, "CKA_PARAMETER_SET is missing.")
    for algorithm, number in PARAMETER_SETS.items():
        if ALGORITHMS[algorithm].family is family and number == wanted:
            return algorithm
    raise CryptokiError(ck.CKR_ATTRIBUTE_VALUE_INVALID)


def _rsa(found: Template) -> Algorithm:
    exponent = found.get(ck.CKA_PUBLIC_EXPONENT, PUBLIC_EXPONENT.to_bytes(3, "big"))
    bits = found.get(ck.CKA_MODULUS_BITS)
    if bits is None:
        raise CryptokiError(ck.CKR_TEMPLATE_INCOMPLETE, "CKA_MODULUS_BITS is missing.")
    if not isinstance(exponent, bytes) or int.from_bytes(exponent) != PUBLIC_EXPONENT:
        raise CryptokiError(
            ck.CKR_ATTRIBUTE_VALUE_INVALID, "CKA_PUBLIC_EXPONENT must be 65537."
        )
    if not isinstance(bits, int) or bits not in _MODULI:
        sizes = ", ".join(map(str, sorted(_MODULI)))
        raise CryptokiError(
            ck.CKR_KEY_SIZE_RANGE, f"CKA_MODULUS_BITS must be one of {sizes}."
        )
    return _MODULI[bits]


def _curve(family: Family, found: Template) -> Algorithm:
    given = found.get(ck.CKA_EC_PARAMS)
    if given is None:
        raise CryptokiError(ck.CKR_TEMPLATE_INCOMPLETE, "CKA_EC_PARAMS is missing.")
    if isinstance(given, bytes) and given in _CURVE_NAMES:
        row = ALGORITHMS[_CURVE_NAMES[given]]
    elif isinstance(given, bytes) and given in _CURVES:
        row = _CURVES[given]
    else:
        raise CryptokiError(
            ck.CKR_CURVE_NOT_SUPPORTED, "CKA_EC_PARAMS names no supported curve."
        )
    if row.family is not family:
        raise CryptokiError(ck.CKR_CURVE_NOT_SUPPORTED)
    return row.algorithm


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "C_GenerateKey": generate_key,
    "C_GenerateKeyPair": generate_key_pair,
}
"""Functions by name."""
