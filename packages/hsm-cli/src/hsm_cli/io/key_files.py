# SPDX-License-Identifier: MIT
"""
Key files: conversion for import, public keys, and signed approval decisions.

Encrypted PKCS#8 is decrypted here, because cryptography loads neither the ML-DSA and
ML-KEM keys that OpenSSL writes (seed and expanded key) nor SLH-DSA and composite keys.

Standard:
    RFC 5958, sections 2 and 3; RFC 8018, section 6.2 (PBES2); RFC 7914, section 7.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Final, TypeVar

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from cryptography.x509 import ObjectIdentifier

from hsm_cli.io.files import Source, decode_pem
from hsm_cli.io.output import print_note
from hsm_core.algorithms import ALGORITHMS, Algorithm, KeyFormat
from hsm_core.errors import InputSizeError, InvalidInputError, UnsupportedOperationError
from hsm_core.secret_input import read_secret_text

K = TypeVar("K")

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
_MAX_SCRYPT_BLOCK_SIZE: Final = 64
_MAX_SCRYPT_PARALLELIZATION: Final = 16
_PRIVATE_KEY: Final = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
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
        InvalidInputError: It is none of these, there are several, or the passphrase is
            wrong.
        UnsupportedOperationError: It is not encrypted with PBES2, AES-CBC, and PBKDF2
            (HMAC-SHA-2) or scrypt.
    """
    if (count := len(_PRIVATE_KEY.findall(data))) > 1:
        raise InvalidInputError(
            f"The file has {count} private keys. It must have only one.", field="key"
        )
    if any(label in data for label in _TRADITIONAL):
        return _from_traditional(data, passphrase)
    if b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in data:
        return _decrypted(decode_pem(data, "ENCRYPTED PRIVATE KEY"), passphrase)
    der = decode_pem(data, "PRIVATE KEY")
    return _decrypted(der, passphrase) if _is_encrypted(der) else der


def _from_traditional(data: bytes, passphrase: Passphrase) -> bytes:
    encrypted = b"Proc-Type: 4,ENCRYPTED" in data
    try:
        key = load_pem_private_key(data, passphrase() if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _unreadable(encrypted) from None
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


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
            return _scrypt(function.parameters.parse(_ScryptParameters), size)
        case _:
            raise _unsupported("a key derivation other than PBKDF2 and scrypt")


def _scrypt(costs: _ScryptParameters, size: int) -> Callable[[bytes], bytes]:
    _check("scrypt block size", costs.block_size, _MAX_SCRYPT_BLOCK_SIZE)
    _check("scrypt cost", costs.cost, _MAX_SCRYPT_BYTES // (128 * costs.block_size))
    _check("scrypt parallelization", costs.parallelization, _MAX_SCRYPT_PARALLELIZATION)
    return Scrypt(
        costs.salt, size, costs.cost, costs.block_size, costs.parallelization
    ).derive


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


def read_material(
    source: Source, form: KeyFormat, passphrase_file: str | None
) -> bytes:
    """
    Return unwrapped key material in the format of the HSM.

    Args:
        source: The file.

        form: Its format: PKCS#8 in any encoding, or raw bytes.

        passphrase_file: File with the passphrase; None prompts on the terminal.

    Raises:
        InvalidInputError: It holds no such key, or the passphrase is wrong.
        click.UsageError: A passphrase is required, and there is no terminal.
    """
    data = source.read()
    if not data:
        raise InvalidInputError("The key file is empty.", field="key")
    if form is not KeyFormat.PKCS8:
        return data
    return read_private_key(data, lambda: _file_passphrase(passphrase_file))


def _file_passphrase(path: str | None) -> bytes:
    if path is None:
        return _prompt("--passphrase-file FILE")
    lines = Source(what="passphrase", path=path).read().splitlines()
    return lines[0] if lines else b""


def _prompt(option: str) -> bytes:
    """Return a passphrase from the terminal."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(
            f"The key is encrypted. Pass {option}, or run the command on a terminal."
        )
    answer: str = click.prompt("Passphrase", hide_input=True, err=True)
    return answer.encode()


_SSH: Final = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_FORMS: Final = (
    "it must be an Ed25519 or ECDSA P-256 private key in PEM or OpenSSH format."
)


def sign_with(path: str, message: bytes, passphrase: Passphrase) -> bytes:
    """
    Return a raw signature: Ed25519, or ECDSA P-256 with SHA-256 in DER.

    Args:
        path: File of the private key.

        message: Bytes to sign.

        passphrase: Returns the passphrase; called only if the key is encrypted.

    Raises:
        InvalidInputError: The file holds no such key, or the passphrase is wrong.
    """
    source = Source(what="key", path=path)
    if source.is_shared:
        print_note("warning: other users can read the key file (chmod 600).")
    key = _load_signing_key(source.read(), passphrase)
    match key:
        case Ed25519PrivateKey():
            return key.sign(message)
        case EllipticCurvePrivateKey() if isinstance(key.curve, SECP256R1):
            return key.sign(message, ECDSA(hashes.SHA256()))
        case _:
            raise InvalidInputError(f"The key can't be used: {_FORMS}", field="key")


def _load(load: Callable[..., K], data: bytes, passphrase: Passphrase) -> K:
    try:
        return load(data, None)
    except TypeError:
        # It is encrypted.
        return load(data, passphrase())


def _load_signing_key(data: bytes, passphrase: Passphrase) -> object:
    is_ssh = data.lstrip().startswith(_SSH)
    load = load_ssh_private_key if is_ssh else load_pem_private_key
    try:
        return _load(load, data, passphrase)
    except UnsupportedAlgorithm as error:
        if "bcrypt" in str(error):
            raise InvalidInputError(
                "Encrypted OpenSSH keys require the package bcrypt. Install it, or use "
                "ssh-keygen -Y sign and pass --signature.",
                field="key",
            ) from None
        raise InvalidInputError(
            f"The key can't be used: {_FORMS}", field="key"
        ) from None
    except (TypeError, ValueError):
        raise InvalidInputError(
            f"The key can't be read, or its passphrase is wrong: {_FORMS}", field="key"
        ) from None


def passphrase_source(given: str | None) -> Passphrase:
    """
    Return a function that reads a passphrase, by default from the terminal.

    Args:
        given: ``@FILE``, ``fd:N``, or a literal passphrase from the environment.
    """
    return lambda: _passphrase(given)


def _passphrase(given: str | None) -> bytes:
    if given is None:
        return _prompt("--passphrase @FILE")
    text = read_secret_text(given, field="passphrase")
    return text.partition("\n")[0].encode()


@asn1.sequence
class _KEMIdentifier:
    algorithm: ObjectIdentifier


@asn1.sequence
class _SubjectPublicKeyInfo:
    algorithm: _KEMIdentifier
    key: asn1.BitString


def read_public_key(source: Source) -> tuple[Algorithm, bytes]:
    """
    Return the algorithm of a KEM public key, and the key in DER.

    Raises:
        InvalidInputError: The file is not a SubjectPublicKeyInfo of a KEM key.
    """
    der = decode_pem(source.read(), "PUBLIC KEY")
    try:
        oid = asn1.decode_der(_SubjectPublicKeyInfo, der).algorithm.algorithm
    except ValueError:
        raise _no_public_key() from None
    for algorithm, row in ALGORITHMS.items():
        if row.is_kem and row.oid == oid.dotted_string:
            return algorithm, der
    raise _no_public_key()


def _no_public_key() -> InvalidInputError:
    return InvalidInputError(
        "The file is not a public key of ML-KEM or of an ML-KEM composite.",
        field="public_key",
    )
