# SPDX-License-Identifier: MIT
"""Public keys that a program gives by their value: session objects, used here."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.creation import check_template, require_short
from hsm_cli.interfaces.pkcs11.errors import CryptokiError
from hsm_cli.interfaces.pkcs11.generation import algorithm_of_pair, require_key_type
from hsm_cli.interfaces.pkcs11.objects import USAGES, KeyObject
from hsm_cli.interfaces.pkcs11.public_parts import OCTET_STRING, curve_of, der
from hsm_core import operations as ops
from hsm_core.algorithms import Algorithm, Family, HashAlgorithm, spec
from hsm_core.errors import InvalidInputError
from hsm_core.model import Integrity, KeyId, KeyInfo, KeyOrigin, KeyState

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    from hsm_cli.interfaces.pkcs11.wire import Template
    from hsm_core.operations import Operation
    from hsm_core.protocols import KeyHandle

R = TypeVar("R")

_NO_KEY: Final = KeyId("")
_PARTS: Final = frozenset(
    {
        ck.CKA_MODULUS,
        ck.CKA_MODULUS_BITS,
        ck.CKA_PUBLIC_EXPONENT,
        ck.CKA_EC_PARAMS,
        ck.CKA_EC_POINT,
    }
)
_SHOWN: Final = _PARTS | {
    ck.CKA_LABEL,
    ck.CKA_ID,
    ck.CKA_SUBJECT,
    ck.CKA_ALLOWED_MECHANISMS,
}


def public_key_object(template: Template) -> KeyObject:
    """
    Return the session object of a public key; see C_CreateObject.

    It holds no secret and the HSM does not know it, so policy and audit log have no
    part in what it verifies and encrypts.

    Raises:
        CryptokiError: It would outlive the session, or there is no such key.
    """
    if template.get(ck.CKA_TOKEN) is True:
        raise CryptokiError(
            ck.CKR_TEMPLATE_INCONSISTENT,
            "CKA_TOKEN of a public key given by value must be false.",
        )
    require_short(template)
    check_template(ck.CKO_PUBLIC_KEY, template, _PARTS)
    algorithm, der = _public_key(template)
    executor = PublicKeyExecutor(algorithm, der)
    row = spec(algorithm)
    made = KeyObject(
        ck.CKO_PUBLIC_KEY,
        KeyInfo(
            key_id=KeyId(str(uuid.uuid4())),
            algorithm=algorithm,
            usages=tuple(
                usage
                for kind, usage in USAGES[ck.CKO_PUBLIC_KEY].items()
                if template.get(kind, True) is True and usage in row.usages
            ),
            version=1,
            state=KeyState.ACTIVE,
            integrity=Integrity.OK,
            generation=1,
            created_at=None,
            updated_at=None,
            origin=KeyOrigin.IMPORTED,
        ),
        row,
        version=1,
        state=KeyState.ACTIVE,
        load=executor.public_key,
        is_token=False,
        executor=executor,
    )
    shown = {
        kind: value for kind, value in template.items() if kind in _SHOWN and value
    }
    made.is_copy = True
    made.rename({ck.CKA_LABEL: b"", ck.CKA_ID: b"", **shown})
    return made


class PublicKeyExecutor:
    """
    Executes what a public key can do, in this process.

    Args:
        algorithm: Its algorithm.

        der: SubjectPublicKeyInfo.

    Raises:
        CryptokiError: It is no key of the algorithm.
    """

    def __init__(self, algorithm: Algorithm, der: bytes) -> None:
        # It loads all of the cryptography.
        from hsm_core.primitives import load_public_key

        self._algorithm = algorithm
        self._der = der
        try:
            self._key: KeyHandle = load_public_key(algorithm, der)
        except InvalidInputError as error:
            raise CryptokiError(ck.CKR_ATTRIBUTE_VALUE_INVALID, str(error)) from None

    def public_key(self) -> ops.PublicKey:
        """Return the key, in DER alone."""
        return ops.PublicKey(
            key_id=_NO_KEY, version=1, algorithm=self._algorithm, der=self._der, pem=""
        )

    def execute(
        self,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None = None,
        approval_id: str = "",
        expected_generation: int = 0,
    ) -> R:
        """Execute `Verify`, `RawVerify`, or `Encrypt` by RSA-OAEP; see `HSM`."""
        from hsm_core import primitives

        found: Any = None
        if isinstance(operation, ops.Verify):
            primitives.verify(
                self._algorithm,
                self._key,
                operation.signature,
                digest=operation.digest,
                scheme=operation.scheme,
                hash=operation.hash,
                encoding=operation.encoding,
                salt_bytes=operation.salt_bytes,
            )
        elif isinstance(operation, ops.RawVerify):
            primitives.verify_raw(
                self._algorithm,
                self._key,
                operation.signature,
                operation.data,
                encoding=operation.encoding,
            )
        elif isinstance(operation, ops.Encrypt):
            ciphertext = primitives.oaep_encrypt(
                self._algorithm,
                self._key,
                operation.plaintext,
                hash=operation.hash or HashAlgorithm.SHA_256,
                mgf_hash=operation.mgf_hash or HashAlgorithm.SHA_256,
                label=operation.aad,
            )
            found = ops.Ciphertext(key_id=_NO_KEY, version=1, ciphertext=ciphertext)
        else:
            raise CryptokiError(ck.CKR_KEY_FUNCTION_NOT_PERMITTED)
        return found  # type: ignore[no-any-return]


def _public_key(template: Template) -> tuple[Algorithm, bytes]:
    """Return the algorithm of a public key, and the key as SubjectPublicKeyInfo."""
    key_type = require_key_type(template)
    if key_type not in {ck.CKK_RSA, ck.CKK_EC}:
        raise CryptokiError(
            ck.CKR_TEMPLATE_INCONSISTENT,
            "Only RSA and EC keys can be given by value.",
        )
    from cryptography.hazmat.primitives import serialization

    try:
        algorithm, key = _rsa(template) if key_type == ck.CKK_RSA else _ec(template)
    except ValueError:
        raise CryptokiError(
            ck.CKR_ATTRIBUTE_VALUE_INVALID, "The public key is not valid."
        ) from None
    return algorithm, key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _rsa(template: Template) -> tuple[Algorithm, RSAPublicKey]:
    from cryptography.hazmat.primitives.asymmetric import rsa

    modulus = int.from_bytes(_octets(template, ck.CKA_MODULUS))
    exponent = int.from_bytes(_octets(template, ck.CKA_PUBLIC_EXPONENT))
    sized = {**template, ck.CKA_MODULUS_BITS: modulus.bit_length()}
    algorithm = algorithm_of_pair(Family.RSA, sized)
    return algorithm, rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _ec(template: Template) -> tuple[Algorithm, EllipticCurvePublicKey]:
    from cryptography.hazmat.primitives.asymmetric import ec

    algorithm = algorithm_of_pair(Family.ECDSA, template)
    point = _octets(template, ck.CKA_EC_POINT)
    bare = point[-1 - 2 * spec(algorithm).coordinate_bytes :]
    # PKCS#11 2.40, 2.3.3, has it in an OCTET STRING; older programs give it bare.
    if point not in {bare, der(OCTET_STRING, bare)}:
        raise ValueError
    return algorithm, ec.EllipticCurvePublicKey.from_encoded_point(
        curve_of(algorithm), bare
    )


def _octets(template: Template, kind: int) -> bytes:
    value = template.get(kind)
    if not isinstance(value, bytes):
        raise CryptokiError(
            ck.CKR_TEMPLATE_INCOMPLETE, f"Attribute {kind:#x} is missing."
        )
    return value
