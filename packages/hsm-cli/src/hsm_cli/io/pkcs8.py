# SPDX-License-Identifier: MIT
"""
Private key files: PEM or DER, encrypted or not, converted to plain PKCS#8 in DER.

Encrypted PKCS#8 is decrypted here, whatever the algorithm of the key, because libraries
do not support all algorithms of the HSM.

Standard:
    RFC 5958, sections 2 and 3; RFC 8018, section 6.2 (PBES2); RFC 7914, section 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.x509 import ObjectIdentifier

from hsm_cli.io.files import decode_pem
from hsm_core.errors import InputSizeError, InvalidInputError, UnsupportedOperationError

Passphrase = Callable[[], bytes]
"""Returns the passphrase; called only if one is needed."""

_PBES2: Final = "1.2.840.113549.1.5.13"
_PBKDF2: Final = "1.2.840.113549.1.5.12"
_SCRYPT: Final = "1.3.6.1.4.1.11591.4.11"
_AES_CBC_BYTES: Final = {
    "2.16.840.1.101.3.4.1.2": 16,
    "2.16.840.1.101.3.4.1.22": 24,
    "2.16.840.1.101.3.4.1.42": 32,
}
_HMACS: Final[dict[str, hashes.HashAlgorithm]] = {
    "1.2.840.113549.2.9": hashes.SHA256(),
    "1.2.840.113549.2.10": hashes.SHA384(),
    "1.2.840.113549.2.11": hashes.SHA512(),
}
_MAX_ITERATIONS: Final = 10_000_000
_MAX_SCRYPT_BYTES: Final = 1024 * 1024 * 1024
_TRADITIONAL: Final = (b"-----BEGIN RSA PRIVATE", b"-----BEGIN EC PRIVATE")


@asn1.sequence
class _Identifier:
    algorithm: ObjectIdentifier
    parameters: asn1.TLV


@asn1.sequence
class _EncryptedPrivateKeyInfo:
    algorithm: _Identifier
    data: bytes


@asn1.sequence
class _PBES2Parameters:
    derivation: _Identifier
    encryption: _Identifier


@asn1.sequence
class _PBKDF2Parameters:
    salt: bytes
    iterations: int
    key_bytes: int | None
    function: _Identifier | None


@asn1.sequence
class _ScryptParameters:
    salt: bytes
    cost: int
    block_size: int
    parallelization: int
    key_bytes: int | None


def read_private_key(data: bytes, passphrase: Passphrase) -> bytes:
    """
    Return PKCS#8 DER, not encrypted.

    Args:
        data: PEM or DER: PKCS#8, encrypted or not, or as PEM the older forms of RSA
            and EC keys.

        passphrase: Called if the key is encrypted.

    Raises:
        InvalidInputError: It is none of these, or the passphrase is wrong.
        UnsupportedOperationError: It is not encrypted with PBES2, AES-CBC, and PBKDF2
            (HMAC-SHA-2) or scrypt.
    """
    if any(label in data for label in _TRADITIONAL):
        return _from_traditional(data, passphrase)
    if b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in data:
        return _decrypted(decode_pem(data, "ENCRYPTED PRIVATE KEY"), passphrase)
    der = decode_pem(data, "PRIVATE KEY")
    return _decrypted(der, passphrase) if _is_encrypted(der) else der


def _from_traditional(data: bytes, passphrase: Passphrase) -> bytes:
    encrypted = b"Proc-Type: 4,ENCRYPTED" in data
    try:
        key = serialization.load_pem_private_key(
            data, passphrase() if encrypted else None
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _unreadable(encrypted) from None
    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _is_encrypted(der: bytes) -> bool:
    """Return whether DER is an EncryptedPrivateKeyInfo."""
    try:
        asn1.decode_der(_EncryptedPrivateKeyInfo, der)
    except ValueError:
        return False
    return True


def _decrypted(der: bytes, passphrase: Passphrase) -> bytes:
    try:
        info = asn1.decode_der(_EncryptedPrivateKeyInfo, der)
        if info.algorithm.algorithm.dotted_string != _PBES2:
            raise _unsupported("an encryption other than PBES2")
        scheme = info.algorithm.parameters.parse(_PBES2Parameters)
        name = scheme.encryption.algorithm.dotted_string
        if name not in _AES_CBC_BYTES:
            raise _unsupported("a cipher other than AES-CBC")
        vector = scheme.encryption.parameters.parse(bytes)
        derive = _derivation(scheme.derivation, _AES_CBC_BYTES[name])
        cipher = Cipher(algorithms.AES(derive(passphrase())), modes.CBC(vector))
        decryptor = cipher.decryptor()
        padded = decryptor.update(info.data) + decryptor.finalize()
        unpadder = padding.PKCS7(128).unpadder()
        der = unpadder.update(padded) + unpadder.finalize()
        # One in 256 wrong passphrases yields valid padding by chance.
        asn1.decode_der(asn1.TLV, der)
        return der
    except InvalidInputError:
        raise
    except (ValueError, TypeError):
        raise _unreadable(encrypted=True) from None


def _derivation(function: _Identifier, size: int) -> Callable[[bytes], bytes]:
    match function.algorithm.dotted_string:
        case name if name == _PBKDF2:
            pbkdf2 = function.parameters.parse(_PBKDF2Parameters)
            used = pbkdf2.function
            hashed = _HMACS.get(used.algorithm.dotted_string) if used else None
            if hashed is None:
                raise _unsupported("PBKDF2 with a hash other than SHA-2")
            _check("iterations", pbkdf2.iterations, _MAX_ITERATIONS)
            return PBKDF2HMAC(hashed, size, pbkdf2.salt, pbkdf2.iterations).derive
        case name if name == _SCRYPT:
            scrypt = function.parameters.parse(_ScryptParameters)
            needed = 128 * scrypt.cost * scrypt.block_size
            _check("scrypt memory", needed, _MAX_SCRYPT_BYTES)
            return Scrypt(
                scrypt.salt,
                size,
                scrypt.cost,
                scrypt.block_size,
                scrypt.parallelization,
            ).derive
        case _:
            raise _unsupported("a key derivation other than PBKDF2 and scrypt")


def _check(field: str, actual: int, maximum: int) -> None:
    if not 1 <= actual <= maximum:
        raise InputSizeError(field, actual=actual, minimum=1, maximum=maximum, unit="")


def _unsupported(what: str) -> UnsupportedOperationError:
    return UnsupportedOperationError(
        f"The key is encrypted with {what}. Re-encrypt it as PKCS#8 with AES-256.",
        field="key",
    )


def _unreadable(encrypted: bool) -> InvalidInputError:
    hint = ", or the passphrase is wrong" if encrypted else ""
    return InvalidInputError(
        f"The file is not a PKCS#8 private key{hint}.", field="key"
    )
