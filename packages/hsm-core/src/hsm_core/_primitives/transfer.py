# SPDX-License-Identifier: MIT
"""Keys wrapped, unwrapped, derived and agreed on, from bytes."""

from __future__ import annotations

from hsm_core._internal.crypto.guard import octets
from hsm_core._internal.crypto.key_transport import (
    check_mechanism,
    unwrap_key,
    wrap_key,
)
from hsm_core._internal.crypto.pyca import symmetric as derivation
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._primitives.keys import (
    Key,
    member,
    member_or_none,
    oaep_parameters,
    private_half,
    public_half,
    registry,
)
from hsm_core.algorithms import (
    Algorithm,
    AlgorithmSpec,
    HashAlgorithm,
    WrapMechanism,
    spec,
)


def key_wrap(
    algorithm: Algorithm, key: Key, data: bytes, *, padded: bool = True
) -> bytes:
    """
    Wrap a key under a symmetric key.

    Args:
        algorithm: AES-256-KW or AES-128-KW.

        key: 32 bytes, or 16.

        data: The key to wrap: 1 byte or more; without padding 16 or more, in steps
            of 8.

        padded: AES-KWP; otherwise AES-KW.

    Returns:
        8 bytes more than *data*, which AES-KWP first fills up to a multiple of 8.

    Raises:
        InputSizeError: *data* can't be wrapped so.

    Standard:
        SP 800-38F, algorithms 3 and 5; RFC 3394, RFC 5649.

    Example:
        >>> wrapped = key_wrap(Algorithm.AES_256_KW, bytes(32), b"a secret")
        >>> len(wrapped)
        16
        >>> key_unwrap(Algorithm.AES_256_KW, bytes(32), wrapped)
        b'a secret'
    """
    return private_half(algorithm, key).wrap(data, padded=padded)


def key_unwrap(
    algorithm: Algorithm, key: Key, wrapped: bytes, *, padded: bool = True
) -> bytes:
    """
    Return what `key_wrap` was given.

    Args:
        algorithm: AES-256-KW or AES-128-KW.

        key: 32 bytes, or 16.

        wrapped: As `key_wrap` returned it.

        padded: As given to `key_wrap`.

    Raises:
        DecryptionError: Anything does not match.

    Standard:
        SP 800-38F, algorithms 4 and 6; RFC 3394, RFC 5649.
    """
    return private_half(algorithm, key).unwrap(wrapped, padded=padded)


def hkdf(
    hash: HashAlgorithm,
    secret: bytes,
    *,
    salt: bytes = b"",
    info: bytes = b"",
    length: int = 32,
) -> bytes:
    """
    Derive a key from a secret.

    Args:
        hash: Any SHA-2.

        secret: Input keying material of any length.

        salt: Any length; empty stands for as many zeros as the hash is long.

        info: What the key is for.

        length: 1 to 255 times the length of the hash.

    Raises:
        InputSizeError: *length* is beyond its limits.

    Standard:
        RFC 5869.

    Example:
        >>> hkdf(HashAlgorithm.SHA_256, bytes([11]) * 22, length=16).hex()
        '8da4e775a563c18f715f802a063c5a31'
    """
    hash = member(HashAlgorithm, hash, "hash")
    registry().require(derivation.HKDF_ALGORITHMS[hash])
    return derivation.hkdf(hash, octets(secret), salt=salt, info=info, length=length)


def ecdh(algorithm: Algorithm, key: Key, peer_public_der: bytes) -> bytes:
    """
    Agree on a secret with the holder of another key; derive keys of it by `hkdf`.

    Args:
        algorithm: X25519, or EC on a curve that agrees on secrets.

        key: Private key.

        peer_public_der: Public key of the other, on the same curve.

    Returns:
        The shared secret Z, 32 or 48 bytes, which are not uniform.

    Raises:
        InvalidInputError: *peer_public_der* is not a public key of this curve, or the
            secret would be all zeros.

    Standard:
        SP 800-56A, section 5.7.1.2; RFC 7748, section 6.1.

    Example:
        >>> from hsm_core.primitives import generate
        >>> ours, theirs = (generate(Algorithm.X25519) for _ in range(2))
        >>> secret = ecdh(Algorithm.X25519, ours.material, theirs.public_der)
        >>> secret == ecdh(Algorithm.X25519, theirs.material, ours.public_der)
        True
    """
    return private_half(algorithm, key).agree(peer_public_der)


def wrap_for_import(
    algorithm: Algorithm,
    key: Key,
    material: bytes,
    *,
    mechanism: WrapMechanism | None = None,
    hash: HashAlgorithm | None = None,
    mgf_hash: HashAlgorithm | None = None,
) -> bytes:
    """
    Wrap a key so that an HSM can import it.

    Args:
        algorithm: Of the wrapping key: an RSA, ML-KEM or composite KEM algorithm, or
            AES-256-KW, AES-128-KW.

        key: Public half of the wrapping key; the bare bytes of an AES key.

        material: PKCS#8 DER, a bare seed or a bare symmetric key, as `ImportKey`'s
            format says.

        mechanism: None means the first that the algorithm has.

        hash: RSA-OAEP only; None means SHA-256.

        mgf_hash: RSA-OAEP only; None means SHA-256.

    Returns:
        What `ImportKey` takes as *wrapped*.

    Raises:
        InputSizeError: AES-KW can't wrap *material*.

    Standard:
        SP 800-38F; RFC 8017, section 7.1.1. The formats are published: "Stored
        keys", section "Keys in transport".

    Example:
        >>> from hsm_core.primitives import generate
        >>> pair = generate(Algorithm.ML_KEM_768)
        >>> wrapped = wrap_for_import(
        ...     Algorithm.ML_KEM_768, pair.public_der, b"a key of 16 byte"
        ... )
        >>> len(wrapped)
        1112
        >>> unwrap_exported(Algorithm.ML_KEM_768, pair.material, wrapped)
        b'a key of 16 byte'
    """
    row = spec(member(Algorithm, algorithm, "algorithm"))
    chosen = _mechanism(row, mechanism, hash, mgf_hash)
    handle = (public_half if row.is_asymmetric else private_half)(algorithm, key)
    parameters = oaep_parameters(hash, mgf_hash)
    return wrap_key(registry(), SystemEntropy(), handle, chosen, material, parameters)


def unwrap_exported(
    algorithm: Algorithm,
    key: Key,
    wrapped: bytes,
    *,
    mechanism: WrapMechanism | None = None,
    hash: HashAlgorithm | None = None,
    mgf_hash: HashAlgorithm | None = None,
) -> bytes:
    """
    Return the key that `ExportKey` or `wrap_for_import` wrapped.

    Args:
        algorithm: Of the wrapping key.

        key: Private half of the wrapping key; the bare bytes of an AES key.

        wrapped: As `ExportKey` returned it.

        mechanism: As it was wrapped; None means the first that the algorithm has.

        hash: RSA-OAEP only; None means SHA-256.

        mgf_hash: RSA-OAEP only; None means SHA-256.

    Returns:
        PKCS#8 DER, a bare seed or a bare symmetric key.

    Raises:
        DecryptionError: Anything does not match; it is not said what.

    Standard:
        SP 800-38F; RFC 8017, section 7.1.2.
    """
    row = spec(member(Algorithm, algorithm, "algorithm"))
    chosen = _mechanism(row, mechanism, hash, mgf_hash)
    handle = private_half(algorithm, key)
    return unwrap_key(
        registry(), handle, chosen, wrapped, oaep_parameters(hash, mgf_hash)
    )


def _mechanism(
    row: AlgorithmSpec,
    mechanism: WrapMechanism | None,
    hash: HashAlgorithm | None,
    mgf_hash: HashAlgorithm | None,
) -> WrapMechanism:
    wanted = member_or_none(WrapMechanism, mechanism, "mechanism")
    return check_mechanism(row, wanted, hash, mgf_hash)
