# SPDX-License-Identifier: MIT
"""Keys as bytes, and checked arguments."""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from functools import cache
from typing import TypeAlias, TypeVar

from hsm_core._internal.crypto.der import seed_key_info
from hsm_core._internal.crypto.guard import octets
from hsm_core._internal.crypto.registry import CryptoRegistry, default_registry
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.algorithms import Algorithm, Family, HashAlgorithm, spec
from hsm_core.errors import InputSizeError, InvalidInputError, UnsupportedOperationError
from hsm_core.model import Record, Secret
from hsm_core.protocols import KeyHandle, OAEPParameters

E = TypeVar("E", bound=StrEnum)


def member(kind: type[E], value: E, field: str) -> E:
    """
    Return the member of an enumeration that *value* is, or is the text of.

    Raises:
        InvalidInputError: There is none.
    """
    with suppress(ValueError):
        return kind(value)
    # Raised here, the error brings no other that repeats the value: it may be a key.
    raise InvalidInputError(f"{field} must be one of {', '.join(kind)}.", field=field)


def member_or_none(kind: type[E], value: E | None, field: str) -> E | None:
    """Return what `member` does, and None for None."""
    return None if value is None else member(kind, value, field)


def oaep_parameters(
    hash: HashAlgorithm | None, mgf_hash: HashAlgorithm | None, label: bytes = b""
) -> OAEPParameters:
    """Return checked parameters of RSAES-OAEP; None means SHA-256."""
    usual = HashAlgorithm.SHA_256
    return OAEPParameters(
        hash=member(HashAlgorithm, usual if hash is None else hash, "hash"),
        mgf_hash=member(
            HashAlgorithm, usual if mgf_hash is None else mgf_hash, "mgf_hash"
        ),
        label=octets(label),
    )


Key: TypeAlias = bytes | KeyHandle
"""As `hsm_core.primitives` says."""


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
        FIPS 186-5, sections 5.1, 6.2 and 7; SP 800-133, section 6.1; FIPS 203, section
        7.1; FIPS 204, section 5.1; FIPS 205, section 10.1.

    Example:
        >>> pair = generate(Algorithm.ED25519)
        >>> (len(pair.material), len(pair.public_der))
        (48, 44)
    """
    made = registry().generate(_known(algorithm))
    return KeyPair(material=made.material, public_der=made.public_der)


def load_private_key(algorithm: Algorithm, material: bytes) -> KeyHandle:
    """
    Load a private or symmetric key, fully checked.

    Args:
        algorithm: What it must be a key of.

        material: Bytes as `Key` says. RSA must have a modulus of exactly the
            algorithm's length and public exponent 65537; ML-KEM and ML-DSA must have
            their seed.

    Returns:
        A handle that can be given wherever a key is asked for, by many threads.

    Example:
        >>> from hsm_core.primitives import mac
        >>> key = load_private_key(Algorithm.HMAC_SHA_256, bytes(32))
        >>> len(mac(Algorithm.HMAC_SHA_256, key, b"hello"))
        32
    """
    return registry().load_foreign(_known(algorithm), octets(material))


def load_public_key(algorithm: Algorithm, public_der: bytes) -> KeyHandle:
    """
    Load a public key, fully checked.

    Args:
        algorithm: What it must be a key of.

        public_der: SubjectPublicKeyInfo, DER, in the one canonical form: a named
            curve, an uncompressed point that lies on it, rsaEncryption.

    Returns:
        A handle that can verify, encrypt or encapsulate, as the algorithm can.

    Example:
        >>> pair = generate(Algorithm.EC_P256)
        >>> load_public_key(Algorithm.EC_P384, pair.public_der)
        Traceback (most recent call last):
        ...
        hsm_core.errors.InvalidInputError: public_key is not a SubjectPublicKeyInfo of \
EC-P384, in DER.
    """
    return registry().load_public(_known(algorithm), octets(public_der))


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
    return private_half(algorithm, key).public_der()


def private_key_from_seed(algorithm: Algorithm, seed: bytes) -> KeyPair:
    """
    Return the key that a seed stands for.

    Args:
        algorithm: An ML-KEM or ML-DSA algorithm.

        seed: d ‖ z of ML-KEM, 64 bytes, or ξ of ML-DSA, 32 bytes.

    Returns:
        PKCS#8 in the form that holds the seed alone, and the public key.

    Raises:
        InputSizeError: *seed* is of another length.

    Standard:
        FIPS 203, algorithm 16, and FIPS 204, algorithm 6; RFC 9935 and RFC 9881,
        section 6.

    Example:
        >>> pair = private_key_from_seed(Algorithm.ML_DSA_44, bytes(32))
        >>> len(pair.material), len(pair.public_der)
        (54, 1334)
    """
    algorithm, seed = _known(algorithm), octets(seed)
    row = spec(algorithm)
    if row.family not in {Family.ML_KEM, Family.ML_DSA}:
        raise UnsupportedOperationError(
            f"{algorithm} keys have no seed.", algorithm=algorithm.value
        )
    if len(seed) != row.private_bytes:
        size = row.private_bytes
        raise InputSizeError("seed", actual=len(seed), minimum=size, maximum=size)
    material = seed_key_info(algorithm, seed)
    handle = registry().load_foreign(algorithm, material)
    return KeyPair(material=material, public_der=handle.public_der())


@cache
def registry() -> CryptoRegistry:
    """Return the providers of this process."""
    return default_registry(SystemEntropy(), {})


def private_half(algorithm: Algorithm, key: Key) -> KeyHandle:
    """Return a private or symmetric key that is ready for use."""
    if isinstance(key, bytes | bytearray | memoryview):
        return load_private_key(algorithm, key)
    return _checked(_known(algorithm), key)


def public_half(algorithm: Algorithm, key: Key) -> KeyHandle:
    """Return a public key that is ready for use."""
    if isinstance(key, bytes | bytearray | memoryview):
        return load_public_key(algorithm, key)
    return _checked(_known(algorithm), key)


def _known(algorithm: Algorithm) -> Algorithm:
    return member(Algorithm, algorithm, "algorithm")


def _checked(algorithm: Algorithm, handle: KeyHandle) -> KeyHandle:
    if not hasattr(handle, "algorithm"):
        raise TypeError(
            f"key must be bytes or a key handle, got {type(handle).__name__}."
        )
    if handle.algorithm is not algorithm:
        raise InvalidInputError(
            f"key must be for {algorithm}, got a key for {handle.algorithm}.",
            field="key",
        )
    return handle
