# SPDX-License-Identifier: MIT
"""
Cryptography from bytes: the very code that an HSM runs, without keys at rest.

No policy, no trail, no storage: whoever calls holds the keys. Meant for verifying and
encrypting where the HSM isn't, and for test vectors. Each algorithm passes its
known-answer test before it is used for the first time in a process.

A key is given as bytes, or as a handle from `load_private_key` or `load_public_key`
where it is used often: a private RSA key from outside is checked for 36 to 256 ms each
time its bytes are loaded.

Every function raises, besides what it says itself:

- `InvalidInputError`: a key is not one of the algorithm;
- `UnsupportedOperationError`: the algorithm has no such operation or parameter;
- `AlgorithmUnavailableError`, `SelfTestFailedError`: the algorithm can't be used in
  this process.
"""

from __future__ import annotations

import hmac
from functools import cache
from typing import TypeAlias

from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.crypto.registry import CryptoRegistry, default_registry
from hsm_core._internal.entropy import SystemEntropy
from hsm_core.algorithms import (
    Algorithm,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
)
from hsm_core.errors import InputSizeError, InvalidInputError, MacMismatchError
from hsm_core.model import Record, Secret
from hsm_core.protocols import KeyHandle, OAEPParameters

__all__ = [
    "Key",
    "KeyPair",
    "aead_decrypt",
    "aead_encrypt",
    "generate",
    "load_private_key",
    "load_public_key",
    "mac",
    "oaep_decrypt",
    "oaep_encrypt",
    "public_key",
    "sign",
    "verify",
    "verify_mac",
]

Key: TypeAlias = bytes | KeyHandle
"""
A key as bytes, or loaded before.

Private keys are PKCS#8 DER (RFC 5958, not encrypted), public keys SubjectPublicKeyInfo
DER (RFC 5280), symmetric keys the bare bytes: 32 for AES-256-GCM and HMAC-SHA-256.
"""

_NONCE_BYTES = 12


class KeyPair(Record, frozen=True, kw_only=True):
    """
    A new key.

    Attributes:
        material: PKCS#8 DER, or the bare bytes of a symmetric key.
        public_der: SubjectPublicKeyInfo DER; empty for a symmetric key.
    """

    material: Secret
    public_der: bytes


def generate(algorithm: Algorithm) -> KeyPair:
    """
    Make a key from the operating system's random generator.

    Its halves are tested to belong together before it is returned. RSA has public
    exponent 65537.

    Raises:
        EntropyUnavailableError: The random generator is not healthy.

    Standard:
        FIPS 186-5, sections 5.1, 6.2 and 7; SP 800-133, section 6.1.

    Example:
        >>> pair = generate(Algorithm.ED25519)
        >>> (len(pair.material), len(pair.public_der))
        (48, 44)
    """
    made = _registry().generate(algorithm)
    return KeyPair(material=made.material, public_der=made.public_der)


def load_private_key(algorithm: Algorithm, material: bytes) -> KeyHandle:
    """
    Load a private or symmetric key, fully checked.

    Args:
        algorithm: What it must be a key of.

        material: Bytes as `Key` says. RSA must have a modulus of exactly the
            algorithm's length and public exponent 65537.

    Returns:
        A handle that can be given wherever a key is asked for, by many threads.

    Example:
        >>> key = load_private_key(Algorithm.HMAC_SHA_256, bytes(32))
        >>> len(mac(Algorithm.HMAC_SHA_256, key, b"hello"))
        32
    """
    return _registry().load_foreign(algorithm, material)


def load_public_key(algorithm: Algorithm, public_der: bytes) -> KeyHandle:
    """
    Load a public key, fully checked.

    Args:
        algorithm: What it must be a key of.

        public_der: SubjectPublicKeyInfo, DER, in the one canonical form: a named
            curve, an uncompressed point that lies on it, rsaEncryption.

    Returns:
        A handle that can verify and, for RSA, encrypt.

    Example:
        >>> pair = generate(Algorithm.EC_P256)
        >>> load_public_key(Algorithm.EC_P384, pair.public_der)
        Traceback (most recent call last):
        ...
        hsm_core.errors.InvalidInputError: public_key is not a SubjectPublicKeyInfo of \
EC-P384, in DER.
    """
    return _registry().load_public(algorithm, public_der)


def public_key(algorithm: Algorithm, key: Key) -> bytes:
    """
    Return the public half of a private key.

    Returns:
        SubjectPublicKeyInfo, DER; empty for a symmetric key.

    Example:
        >>> pair = generate(Algorithm.EC_P256)
        >>> public_key(Algorithm.EC_P256, pair.material) == pair.public_der
        True
    """
    return _private(algorithm, key).public_der()


def sign(
    algorithm: Algorithm,
    key: Key,
    message: bytes | None = None,
    *,
    digest: bytes | None = None,
    scheme: SignatureScheme | None = None,
    hash: HashAlgorithm | None = None,
    encoding: SignatureEncoding | None = None,
) -> bytes:
    """
    Sign a message, or its digest.

    Args:
        algorithm: An RSA, ECDSA or EdDSA algorithm.

        key: Private key.

        message: Any length. Give this or *digest*, not both.

        digest: RSA and ECDSA only: the digest of the message under *hash*, exactly
            as long as that hash.

        scheme: RSA only. None means RSASSA-PSS, whose salt is as long as the hash.

        hash: RSA: any SHA-2, by default SHA-256. ECDSA: the hash paired with the
            curve. Ed25519 takes none.

        encoding: ECDSA only. None means DER.

    Returns:
        As long as the modulus for RSA; DER, or r ‖ s of 64, 96 or 132 bytes for ECDSA;
        64 bytes for Ed25519.

    Raises:
        InputSizeError: *digest* is of another length than the hash.

    Standard:
        RFC 8017, sections 8.1.1 and 8.2.1; FIPS 186-5, section 6.4.1; RFC 8032,
        section 5.1.6.

    Example:
        >>> pair = generate(Algorithm.EC_P256)
        >>> len(
        ...     sign(
        ...         Algorithm.EC_P256,
        ...         pair.material,
        ...         b"hello",
        ...         encoding=SignatureEncoding.P1363,
        ...     )
        ... )
        64
    """
    parameters = signature_parameters(
        algorithm,
        scheme=scheme,
        hash=hash,
        encoding=encoding,
        prehashed=digest is not None,
    )
    data = _one_of(message, digest)
    return _private(algorithm, key).sign(data, parameters)


def verify(
    algorithm: Algorithm,
    key: Key,
    signature: bytes,
    message: bytes | None = None,
    *,
    digest: bytes | None = None,
    scheme: SignatureScheme | None = None,
    hash: HashAlgorithm | None = None,
    encoding: SignatureEncoding | None = None,
    mgf_hash: HashAlgorithm | None = None,
    salt_bytes: int | None = None,
) -> None:
    """
    Check a signature; return nothing if it is good.

    Args:
        algorithm: An RSA, ECDSA or EdDSA algorithm.

        key: Public key.

        signature: As `sign` returns it.

        message: Any length. Give this or *digest*, not both.

        digest: RSA and ECDSA only: the digest of the message under *hash*.

        scheme: RSA only. None means RSASSA-PSS.

        hash: RSA and ECDSA: any SHA-2. None means the one `sign` takes by default.

        encoding: ECDSA only. None means DER.

        mgf_hash: RSASSA-PSS only. None means *hash*.

        salt_bytes: RSASSA-PSS only: length of the salt. None accepts any.

    Raises:
        SignatureMismatchError: It is wrong, of whatever length or form.
        InputSizeError: *digest* is of another length than the hash, or *salt_bytes*
            does not fit into the modulus.

    Standard:
        RFC 8017, sections 8.1.2 and 8.2.2; FIPS 186-5, section 6.4.2; RFC 8032,
        section 5.1.7.

    Example:
        >>> pair = generate(Algorithm.ED25519)
        >>> signature = sign(Algorithm.ED25519, pair.material, b"hello")
        >>> verify(Algorithm.ED25519, pair.public_der, signature, b"hello")
        >>> verify(Algorithm.ED25519, pair.public_der, signature, b"goodbye")
        Traceback (most recent call last):
        ...
        hsm_core.errors.SignatureMismatchError: The signature does not match.
    """
    parameters = signature_parameters(
        algorithm,
        scheme=scheme,
        hash=hash,
        encoding=encoding,
        mgf_hash=mgf_hash,
        salt_bytes=salt_bytes,
        prehashed=digest is not None,
    )
    data = _one_of(message, digest)
    _public(algorithm, key).verify(data, signature, parameters)


def aead_encrypt(
    algorithm: Algorithm, key: Key, nonce: bytes, plaintext: bytes, aad: bytes = b""
) -> bytes:
    """
    Encrypt and authenticate under a nonce of the caller's.

    A nonce must never be used twice with a key: that gives away the plaintexts' XOR
    and the authentication key. An HSM draws its nonces itself; here it is your duty.

    Args:
        algorithm: AES-256-GCM.

        key: 32 bytes.

        nonce: Exactly 12 bytes, the initialisation vector of the standard.

        plaintext: At most 2 147 483 631 bytes.

        aad: Authenticated, not encrypted; at most 2 147 483 631 bytes.

    Returns:
        Ciphertext, as long as *plaintext*, followed by a tag of 16 bytes.

    Raises:
        InputSizeError: An argument is of another length.

    Standard:
        SP 800-38D, section 7.1, algorithm 4.

    Example:
        >>> key, nonce = bytes(32), bytes(12)
        >>> sealed = aead_encrypt(Algorithm.AES_256_GCM, key, nonce, b"hello")
        >>> len(sealed)
        21
        >>> aead_decrypt(Algorithm.AES_256_GCM, key, nonce, sealed)
        b'hello'
    """
    return _private(algorithm, key).seal(nonce, plaintext, aad)


def aead_decrypt(
    algorithm: Algorithm, key: Key, nonce: bytes, ciphertext: bytes, aad: bytes = b""
) -> bytes:
    """
    Decrypt what `aead_encrypt` returned, after checking its tag.

    Args:
        algorithm: AES-256-GCM.

        key: 32 bytes.

        nonce: Exactly 12 bytes.

        ciphertext: Ciphertext ‖ tag.

        aad: As given to `aead_encrypt`.

    Raises:
        DecryptionError: Anything does not match; it is not said what.
        InputSizeError: *nonce* is of another length.

    Standard:
        SP 800-38D, section 7.2, algorithm 5.

    Example:
        >>> aead_decrypt(Algorithm.AES_256_GCM, bytes(32), bytes(12), bytes(21))
        Traceback (most recent call last):
        ...
        hsm_core.errors.DecryptionError: The ciphertext could not be decrypted.
    """
    if len(nonce) != _NONCE_BYTES:
        raise InputSizeError(
            "nonce", actual=len(nonce), minimum=_NONCE_BYTES, maximum=_NONCE_BYTES
        )
    return _private(algorithm, key).open(nonce, ciphertext, aad)


def oaep_encrypt(
    algorithm: Algorithm,
    key: Key,
    plaintext: bytes,
    *,
    hash: HashAlgorithm = HashAlgorithm.SHA_256,
    mgf_hash: HashAlgorithm = HashAlgorithm.SHA_256,
    label: bytes = b"",
) -> bytes:
    """
    Encrypt a short message to a public key.

    Args:
        algorithm: An RSA algorithm.

        key: Public key.

        plaintext: At most the modulus's length less twice the hash's less 2 bytes:
            190 for RSA-2048 and 318 for RSA-3072 with SHA-256.

        hash: Hash of the label.

        mgf_hash: Hash of MGF1.

        label: Authenticated, not encrypted.

    Returns:
        A ciphertext as long as the modulus.

    Raises:
        InputSizeError: *plaintext* is too long.

    Standard:
        RFC 8017, section 7.1.1.

    Example:
        >>> pair = generate(Algorithm.RSA_2048)
        >>> sent = oaep_encrypt(Algorithm.RSA_2048, pair.public_der, b"hello")
        >>> len(sent)
        256
        >>> oaep_decrypt(Algorithm.RSA_2048, pair.material, sent)
        b'hello'
    """
    parameters = OAEPParameters(hash=hash, mgf_hash=mgf_hash, label=label)
    return _public(algorithm, key).encrypt(plaintext, parameters)


def oaep_decrypt(
    algorithm: Algorithm,
    key: Key,
    ciphertext: bytes,
    *,
    hash: HashAlgorithm = HashAlgorithm.SHA_256,
    mgf_hash: HashAlgorithm = HashAlgorithm.SHA_256,
    label: bytes = b"",
) -> bytes:
    """
    Decrypt what `oaep_encrypt` returned.

    Args:
        algorithm: An RSA algorithm.

        key: Private key.

        ciphertext: Exactly as long as the modulus.

        hash: As given to `oaep_encrypt`.

        mgf_hash: As given to `oaep_encrypt`.

        label: As given to `oaep_encrypt`.

    Raises:
        DecryptionError: Anything does not match, or the length is another.

    Standard:
        RFC 8017, section 7.1.2.
    """
    parameters = OAEPParameters(hash=hash, mgf_hash=mgf_hash, label=label)
    return _private(algorithm, key).decrypt(ciphertext, parameters)


def mac(algorithm: Algorithm, key: Key, message: bytes) -> bytes:
    """
    Compute a message authentication code.

    Args:
        algorithm: HMAC-SHA-256.

        key: 32 bytes.

        message: Any length.

    Returns:
        32 bytes, never truncated.

    Standard:
        FIPS 198-1.

    Example:
        >>> mac(Algorithm.HMAC_SHA_256, bytes(32), b"hello").hex()[:16]
        '4352b26e33fe0d76'
    """
    return _private(algorithm, key).mac(message)


def verify_mac(algorithm: Algorithm, key: Key, message: bytes, tag: bytes) -> None:
    """
    Check a MAC in constant time; return nothing if it is good.

    Args:
        algorithm: HMAC-SHA-256.

        key: 32 bytes.

        message: Any length.

        tag: All 32 bytes of the MAC; a truncated one is wrong.

    Raises:
        MacMismatchError: It is wrong, of whatever length.

    Standard:
        FIPS 198-1.

    Example:
        >>> tag = mac(Algorithm.HMAC_SHA_256, bytes(32), b"hello")
        >>> verify_mac(Algorithm.HMAC_SHA_256, bytes(32), b"hello", tag)
        >>> verify_mac(Algorithm.HMAC_SHA_256, bytes(32), b"hello", tag[:16])
        Traceback (most recent call last):
        ...
        hsm_core.errors.MacMismatchError: The MAC does not match.
    """
    if not hmac.compare_digest(mac(algorithm, key, message), tag):
        raise MacMismatchError


@cache
def _registry() -> CryptoRegistry:
    return default_registry(SystemEntropy(), {})


def _private(algorithm: Algorithm, key: Key) -> KeyHandle:
    if isinstance(key, bytes):
        return load_private_key(algorithm, key)
    return _checked(algorithm, key)


def _public(algorithm: Algorithm, key: Key) -> KeyHandle:
    if isinstance(key, bytes):
        return load_public_key(algorithm, key)
    return _checked(algorithm, key)


def _checked(algorithm: Algorithm, handle: KeyHandle) -> KeyHandle:
    if handle.algorithm is not algorithm:
        raise InvalidInputError(
            f"key is one of {handle.algorithm}, not of {algorithm}.", field="key"
        )
    return handle


def _one_of(message: bytes | None, digest: bytes | None) -> bytes:
    data = message if digest is None else digest
    if data is None or (message is not None and digest is not None):
        raise InvalidInputError(
            "Give the message or its digest, one of the two.", field="message"
        )
    return data
