# SPDX-License-Identifier: MIT
"""Signatures with given keys, and ML-DSA's external mu."""

from __future__ import annotations

import hashlib

from hsm_core._internal.crypto.der import read_public_key_info
from hsm_core._internal.crypto.guard import octets
from hsm_core._internal.crypto.parameters import (
    MU_BYTES,
    check_verifying,
    raw_signature_input,
    signature_input,
    signature_parameters,
)
from hsm_core._primitives.keys import (
    Key,
    member,
    member_or_none,
    private_half,
    public_half,
)
from hsm_core.algorithms import (
    Algorithm,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
    spec,
)


def sign(
    algorithm: Algorithm,
    key: Key,
    message: bytes | None = None,
    *,
    digest: bytes | None = None,
    mu: bytes | None = None,
    scheme: SignatureScheme | None = None,
    hash: HashAlgorithm | None = None,
    encoding: SignatureEncoding | None = None,
    context: bytes = b"",
) -> bytes:
    """
    Sign a message, its digest, or its mu.

    ML-DSA and SLH-DSA are hedged: two signatures of one message differ.

    Args:
        algorithm: Any algorithm that signs.

        key: Private key.

        message: Any length. Give one of this, *digest* and *mu*.

        digest: RSA, ECDSA and composites only: the digest of the message under
            *hash*, exactly as long as that hash.

        mu: ML-DSA only: 64 bytes, as `external_mu` makes them.

        scheme: RSA only. None means RSASSA-PSS, whose salt is as long as the hash.

        hash: RSA: any SHA-2, by default SHA-256. ECDSA: the hash paired with the
            curve. Composites: their pre-hash. The others take none.

        encoding: ECDSA only. None means DER.

        context: ML-DSA, SLH-DSA and composites only: up to 255 bytes. Not with *mu*,
            which holds it.

    Returns:
        As long as the modulus for RSA; DER, or r ‖ s of 64, 96 or 132 bytes for ECDSA;
        64 bytes for Ed25519; `AlgorithmSpec.signature_bytes` for the others, and at
        most that for composites with ECDSA.

    Raises:
        InputSizeError: *digest* is of another length than the hash, *mu* is not 64
            bytes, or *context* is longer than 255.

    Standard:
        RFC 8017, sections 8.1.1 and 8.2.1; FIPS 186-5, section 6.4.1; RFC 8032,
        section 5.1.6; FIPS 204, section 5.2; FIPS 205, section 10.2.1;
        draft-ietf-lamps-pq-composite-sigs-19.

    Example:
        >>> from hsm_core.primitives import generate
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
    data, parameters = signature_input(
        member(Algorithm, algorithm, "algorithm"),
        message,
        digest,
        mu,
        is_signing=True,
        scheme=member_or_none(SignatureScheme, scheme, "scheme"),
        hash=member_or_none(HashAlgorithm, hash, "hash"),
        encoding=member_or_none(SignatureEncoding, encoding, "encoding"),
        context=octets(context),
    )
    return private_half(algorithm, key).sign(data, parameters)


def verify(
    algorithm: Algorithm,
    key: Key,
    signature: bytes,
    message: bytes | None = None,
    *,
    digest: bytes | None = None,
    mu: bytes | None = None,
    scheme: SignatureScheme | None = None,
    hash: HashAlgorithm | None = None,
    encoding: SignatureEncoding | None = None,
    mgf_hash: HashAlgorithm | None = None,
    salt_bytes: int | None = None,
    context: bytes = b"",
) -> None:
    """
    Check a signature; return nothing if it is good.

    Args:
        algorithm: Any algorithm that signs.

        key: Public key.

        signature: As `sign` returns it.

        message: Any length. Give one of this, *digest* and *mu*.

        digest: RSA, ECDSA and composites only: the digest of the message under *hash*.

        mu: ML-DSA only: 64 bytes, as `external_mu` makes them.

        scheme: RSA only. None means RSASSA-PSS.

        hash: RSA and ECDSA: any SHA-2. Composites: their pre-hash. None means the one
            `sign` takes by default.

        encoding: ECDSA only. None means DER.

        mgf_hash: RSASSA-PSS only. None means *hash*.

        salt_bytes: RSASSA-PSS only: length of the salt. None accepts any up to the
            hash's length.

        context: As given to `sign`.

    Raises:
        SignatureMismatchError: It is wrong, of whatever length or form.
        InputSizeError: *digest* is of another length than the hash, *mu* is not 64
            bytes, *context* is longer than 255, or *salt_bytes* does not fit into the
            modulus.

    Standard:
        RFC 8017, sections 8.1.2 and 8.2.2; FIPS 186-5, section 6.4.2; RFC 8032,
        section 5.1.7; FIPS 204, section 5.3; FIPS 205, section 10.3;
        draft-ietf-lamps-pq-composite-sigs-19.

    Example:
        >>> from hsm_core.primitives import generate
        >>> pair = generate(Algorithm.ED25519)
        >>> signature = sign(Algorithm.ED25519, pair.material, b"hello")
        >>> verify(Algorithm.ED25519, pair.public_der, signature, b"hello")
        >>> verify(Algorithm.ED25519, pair.public_der, signature, b"goodbye")
        Traceback (most recent call last):
        ...
        hsm_core.errors.SignatureMismatchError: The signature does not match.
    """
    data, parameters = signature_input(
        member(Algorithm, algorithm, "algorithm"),
        message,
        digest,
        mu,
        is_signing=False,
        scheme=member_or_none(SignatureScheme, scheme, "scheme"),
        hash=member_or_none(HashAlgorithm, hash, "hash"),
        encoding=member_or_none(SignatureEncoding, encoding, "encoding"),
        mgf_hash=member_or_none(HashAlgorithm, mgf_hash, "mgf_hash"),
        salt_bytes=salt_bytes,
        context=octets(context),
    )
    public_half(algorithm, key).verify(data, signature, parameters)


def verify_raw(
    algorithm: Algorithm,
    key: Key,
    signature: bytes,
    data: bytes,
    *,
    encoding: SignatureEncoding | None = None,
) -> None:
    """
    Check a signature by `RawSign`, over data as it is; return nothing if it is good.

    Args:
        algorithm: An RSA or ECDSA algorithm.

        key: Public key.

        signature: As `RawSign` returns it.

        data: RSA: what RSASSA-PKCS1-v1_5 padded, up to the length of the modulus less
            11. ECDSA: a digest of any hash, up to 64 bytes.

        encoding: ECDSA only. None means DER.

    Raises:
        SignatureMismatchError: It is wrong, of whatever length or form.
        InputSizeError: *data* is empty or too long.

    Standard:
        RFC 8017, section 8.2.2, with step 2 of section 9.2 done; FIPS 186-5, section
        6.4.2.

    Example:
        >>> from hsm_core.primitives import generate
        >>> pair = generate(Algorithm.EC_P256)
        >>> digest = hashlib.sha256(b"hello").digest()
        >>> signature = sign(Algorithm.EC_P256, pair.material, digest=digest)
        >>> verify_raw(Algorithm.EC_P256, pair.public_der, signature, digest)
    """
    row = spec(member(Algorithm, algorithm, "algorithm"))
    encoding = member_or_none(SignatureEncoding, encoding, "encoding")
    if encoding is None and row.coordinate_bytes:
        encoding = SignatureEncoding.DER
    data, parameters = raw_signature_input(row, octets(data), encoding)
    public_half(algorithm, key).verify(data, signature, parameters)


class MuHasher:
    """
    Computes mu of a message that comes in pieces, for ML-DSA.

    So a message of any size is hashed where it lies, and 64 bytes are all that the
    signer gets.

    Args:
        algorithm: An ML-DSA algorithm.

        key: Public key that will verify the signature; its hash is part of mu.

        context: Up to 255 bytes that separate the uses of a key.

    Raises:
        InputSizeError: *context* is longer than 255 bytes.

    Standard:
        FIPS 204, algorithm 2, line 10, algorithm 7, line 6, and section 6.2.

    Example:
        >>> from hsm_core.primitives import generate
        >>> pair = generate(Algorithm.ML_DSA_44)
        >>> hasher = MuHasher(Algorithm.ML_DSA_44, pair.public_der)
        >>> for piece in (b"hel", b"lo"):
        ...     hasher.update(piece)
        >>> signature = sign(Algorithm.ML_DSA_44, pair.material, mu=hasher.digest())
        >>> verify(Algorithm.ML_DSA_44, pair.public_der, signature, b"hello")
    """

    __slots__ = ("_hash",)

    def __init__(self, algorithm: Algorithm, key: Key, context: bytes = b"") -> None:
        algorithm = member(Algorithm, algorithm, "algorithm")
        if isinstance(key, bytes | bytearray | memoryview):
            public_der = octets(key)
        else:
            public_der = key.public_der()
        context = octets(context)
        by_mu = signature_parameters(algorithm, external_mu=True)
        check_verifying(algorithm, bytes(MU_BYTES), by_mu)
        plain = signature_parameters(algorithm, context=context)
        check_verifying(algorithm, b"", plain)
        public = read_public_key_info(algorithm, public_der)
        self._hash = hashlib.shake_256(hashlib.shake_256(public).digest(MU_BYTES))
        self._hash.update(bytes([0, len(context)]) + context)

    def update(self, data: bytes, /) -> None:
        """Add the next piece of the message."""
        self._hash.update(data)

    def digest(self) -> bytes:
        """Return mu of all pieces so far, 64 bytes."""
        return self._hash.digest(MU_BYTES)


def external_mu(
    algorithm: Algorithm, key: Key, message: bytes, context: bytes = b""
) -> bytes:
    """
    Return mu of a message; see `MuHasher`.

    Args:
        algorithm: An ML-DSA algorithm.

        key: Public key that will verify the signature.

        message: Any length.

        context: Up to 255 bytes.

    Returns:
        64 bytes, to be given as *mu* to `sign`, `verify` or an HSM.

    Raises:
        InputSizeError: *context* is longer than 255 bytes.

    Standard:
        FIPS 204, algorithm 7, line 6.

    Example:
        >>> from hsm_core.primitives import generate
        >>> public_der = generate(Algorithm.ML_DSA_44).public_der
        >>> len(external_mu(Algorithm.ML_DSA_44, public_der, b"hello"))
        64
    """
    hasher = MuHasher(algorithm, key, context)
    hasher.update(message)
    return hasher.digest()
