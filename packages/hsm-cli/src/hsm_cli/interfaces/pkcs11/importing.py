# SPDX-License-Identifier: MIT
"""Keys that a program gives by their value; they enter the HSM wrapped."""

from __future__ import annotations

import math
import secrets
from typing import TYPE_CHECKING, Final

import msgspec

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.creation import Creation, creation
from hsm_cli.interfaces.pkcs11.errors import CryptokiError
from hsm_cli.interfaces.pkcs11.generation import (
    PUBLIC_EXPONENT,
    added,
    algorithm_of_pair,
    require_key_type,
    secret_algorithm,
)
from hsm_cli.interfaces.pkcs11.objects import SESSION_KEY
from hsm_cli.interfaces.pkcs11.public_parts import curve_of
from hsm_core.algorithms import Algorithm, Family, KeyUsage, spec
from hsm_core.errors import HSMError, InvalidInputError, KeyNotFoundError, KeyStateError
from hsm_core.operations import CreateKey, DestroyKey, GetPublicKey, ImportKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from hsm_cli.interfaces.pkcs11.application import Application
    from hsm_cli.interfaces.pkcs11.sessions import Session
    from hsm_cli.interfaces.pkcs11.wire import Template
    from hsm_core.operations import PublicKey

_TRANSPORT: Final = Algorithm.ML_KEM_768
_PARTS: Final = frozenset(
    {
        ck.CKA_VALUE,
        ck.CKA_MODULUS,
        ck.CKA_PRIVATE_EXPONENT,
        ck.CKA_PRIME_1,
        ck.CKA_PRIME_2,
        ck.CKA_EXPONENT_1,
        ck.CKA_EXPONENT_2,
        ck.CKA_COEFFICIENT,
    }
)
"""Attributes that are the key itself."""

_TRIES: Final = 30
"""Attempts to find the primes of an RSA key; each finds them in half of all cases."""

_COUNTERPARTS: Final = {
    KeyUsage.SIGN: KeyUsage.VERIFY,
    KeyUsage.DECRYPT: KeyUsage.ENCRYPT,
    KeyUsage.UNWRAP: KeyUsage.WRAP,
}
"""Usages of the public key by those of a private key, which comes alone."""


class Transport:
    """
    Key of the HSM for which an application's keys are wrapped, made at first use.

    Args:
        application: The application.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._key_id = ""
        self._public: PublicKey | None = None

    def public_key(self) -> PublicKey:
        """
        Return its public key.

        Raises:
            HSMError: The caller may not create keys, or the HSM is not available.
        """
        if self._public is None:
            hsm = self._application.hsm
            if not self._key_id:
                made = hsm.execute(
                    CreateKey(
                        algorithm=_TRANSPORT,
                        usages=(KeyUsage.UNWRAP,),
                        tags=(SESSION_KEY,),
                    )
                )
                self._key_id = made.key_id
            self._public = hsm.execute(GetPublicKey(key_id=self._key_id))
        return self._public

    def end(self) -> None:
        """Destroy it, as the user logs out or the application ends."""
        key_id, self._key_id, self._public = self._key_id, "", None
        if not key_id:
            return
        try:
            self._application.hsm.execute(DestroyKey(key_id=key_id))
        except HSMError as error:
            if error.facts.get("state") == "destroyed":
                return
            self._application.access.log(
                f"transport key {key_id} could not be destroyed ({error.code}). Run: "
                f"hsm-cli destroy {key_id}"
            )


def import_key(session: Session, template: Template) -> int:
    """
    Import a secret or private key, and return its handle; see C_CreateObject.

    Raises:
        HSMError: The caller may not create or import keys.
        CryptokiError: The template is not complete, or there is no such key.
    """
    rest = {kind: value for kind, value in template.items() if kind not in _PARTS}
    wanted = creation(int(template[ck.CKA_CLASS]), rest)  # type: ignore[arg-type]
    session.require_user()
    if wanted.is_token:
        session.require_writable()
    if template[ck.CKA_CLASS] == ck.CKO_SECRET_KEY:
        algorithm, material = _secret(template, wanted)
    else:
        algorithm, material = _private(template)
        wanted = _with_counterparts(wanted)
    try:
        return _import(session, wanted, algorithm, material)
    except (KeyNotFoundError, KeyStateError):
        # Somebody has destroyed, revoked or suspended the transport key.
        session.application.transport.end()
        return _import(session, wanted, algorithm, material)


def _import(
    session: Session, wanted: Creation, algorithm: Algorithm, material: bytes
) -> int:
    # It loads all of the cryptography.
    from hsm_core.primitives import wrap_for_import

    public = session.application.transport.public_key()
    wrapped = wrap_for_import(_TRANSPORT, public.der, material)
    operation = ImportKey(
        algorithm=algorithm,
        wrapping_key_id=public.key_id,
        # Somebody may have rotated it since.
        wrapping_version=public.version,
        wrapped=wrapped,
    )
    try:
        return added(session, wanted, operation)[0].handle
    except InvalidInputError as error:
        raise CryptokiError(ck.CKR_ATTRIBUTE_VALUE_INVALID, str(error)) from None


def _with_counterparts(wanted: Creation) -> Creation:
    usages = {*wanted.usages, *(_COUNTERPARTS.get(u, u) for u in wanted.usages)}
    return msgspec.structs.replace(wanted, usages=tuple(sorted(usages)))


def _secret(template: Template, wanted: Creation) -> tuple[Algorithm, bytes]:
    value = _bytes(template, ck.CKA_VALUE)
    if template.get(ck.CKA_VALUE_LEN, len(value)) != len(value):
        raise CryptokiError(ck.CKR_TEMPLATE_INCONSISTENT)
    return secret_algorithm(require_key_type(template), len(value), wanted), value


def _private(template: Template) -> tuple[Algorithm, bytes]:
    """Return the algorithm of a private key, and the key as PKCS#8."""
    key_type = require_key_type(template)
    if key_type not in {ck.CKK_RSA, ck.CKK_EC}:
        raise CryptokiError(
            ck.CKR_TEMPLATE_INCONSISTENT,
            "Only RSA and EC keys can be imported by value.",
        )
    from cryptography.hazmat.primitives import serialization

    try:
        algorithm, key = _rsa(template) if key_type == ck.CKK_RSA else _ec(template)
    except ValueError:
        # Its text may hold a part of the key.
        raise CryptokiError(
            ck.CKR_ATTRIBUTE_VALUE_INVALID, "The parts of the private key do not match."
        ) from None
    return algorithm, key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _rsa(template: Template) -> tuple[Algorithm, RSAPrivateKey]:
    from cryptography.hazmat.primitives.asymmetric import rsa

    modulus, private = (
        _number(template, kind) for kind in (ck.CKA_MODULUS, ck.CKA_PRIVATE_EXPONENT)
    )
    exponent = int.from_bytes(
        _bytes(template, ck.CKA_PUBLIC_EXPONENT, PUBLIC_EXPONENT.to_bytes(3, "big"))
    )
    sized = {**template, ck.CKA_MODULUS_BITS: modulus.bit_length()}
    algorithm = algorithm_of_pair(Family.RSA, sized)
    if private >= modulus:
        raise ValueError
    if ck.CKA_PRIME_1 in template and ck.CKA_PRIME_2 in template:
        first, second = (
            _number(template, kind) for kind in (ck.CKA_PRIME_1, ck.CKA_PRIME_2)
        )
    else:
        first, second = _primes(modulus, exponent * private - 1)
    # What follows computes with numbers of any length.
    if first >= modulus or second >= modulus or first * second != modulus:
        raise ValueError
    numbers = rsa.RSAPrivateNumbers(
        p=first,
        q=second,
        d=private,
        dmp1=rsa.rsa_crt_dmp1(private, first),
        dmq1=rsa.rsa_crt_dmq1(private, second),
        iqmp=rsa.rsa_crt_iqmp(first, second),
        public_numbers=rsa.RSAPublicNumbers(exponent, modulus),
    )
    return algorithm, numbers.private_key()


def _primes(modulus: int, multiple: int) -> tuple[int, int]:
    """
    Return the factors of a modulus, in bounded time for every input.

    Standard:
        Handbook of Applied Cryptography, section 8.2.2 (i).

    Args:
        modulus: Product of two primes.

        multiple: Multiple of the order of its group.
    """
    if pow(2, multiple, modulus) != 1:
        raise ValueError
    twos = (multiple & -multiple).bit_length() - 1
    for _ in range(_TRIES):
        root = pow(secrets.randbelow(modulus), multiple >> twos, modulus)
        for _ in range(twos):
            square = root * root % modulus
            if square == 1 and root not in {1, modulus - 1}:
                factor = math.gcd(root - 1, modulus)
                return factor, modulus // factor
            root = square
    raise ValueError


def _ec(template: Template) -> tuple[Algorithm, EllipticCurvePrivateKey]:
    from cryptography.hazmat.primitives.asymmetric import ec

    algorithm = algorithm_of_pair(Family.ECDSA, template)
    scalar = _number(template, ck.CKA_VALUE)
    if scalar.bit_length() > 8 * spec(algorithm).coordinate_bytes:
        raise ValueError
    return algorithm, ec.derive_private_key(scalar, curve_of(algorithm))


def _number(template: Template, kind: int) -> int:
    return int.from_bytes(_bytes(template, kind))


def _bytes(template: Template, kind: int, default: bytes | None = None) -> bytes:
    value = template.get(kind, default)
    if not isinstance(value, bytes):
        raise CryptokiError(
            ck.CKR_TEMPLATE_INCOMPLETE, f"Attribute {kind:#x} is missing."
        )
    return value
