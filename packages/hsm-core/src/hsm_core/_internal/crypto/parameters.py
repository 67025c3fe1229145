# SPDX-License-Identifier: MIT
"""Parameters of signatures: defaults, and checks before a provider is called."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from hsm_core.algorithms import (
    Algorithm,
    AlgorithmSpec,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
    spec,
)
from hsm_core.errors import (
    InputSizeError,
    InvalidInputError,
    SignatureMismatchError,
    UnsupportedOperationError,
)
from hsm_core.protocols import SignatureParameters

MU_BYTES: Final = 64
"""Length of ML-DSA's message representative (FIPS 204, algorithm 7, line 6)."""

_LONGEST_DIGEST: Final = 64
_PKCS1_BYTES: Final = 11
"""Least padding of RSASSA-PKCS1-v1_5 (RFC 8017, section 9.2)."""


def signature_parameters(
    algorithm: Algorithm,
    *,
    scheme: SignatureScheme | None = None,
    hash: HashAlgorithm | None = None,
    encoding: SignatureEncoding | None = None,
    mgf_hash: HashAlgorithm | None = None,
    salt_bytes: int | None = None,
    prehashed: bool = False,
    context: bytes = b"",
    external_mu: bool = False,
) -> SignatureParameters:
    """
    Fill the defaults of an algorithm; `check_signing` and `check_verifying` check.

    Args:
        algorithm: What will sign.

        scheme: None means the algorithm's first scheme.

        hash: None means the first hash to sign with; for a composite its pre-hash.

        encoding: ECDSA only; None means DER.

        mgf_hash: RSASSA-PSS only; None means *hash*.

        salt_bytes: RSASSA-PSS only.

        prehashed: The data will be a digest.

        context: ML-DSA, SLH-DSA and composites only: up to 255 bytes.

        external_mu: ML-DSA only: the data will be mu.

    Raises:
        UnsupportedOperationError: The algorithm doesn't sign, or has no such parameter.
    """
    row = spec(algorithm)
    if not row.schemes:
        raise _unsupported(algorithm, "can't sign", "algorithm")
    chosen = row.schemes[0] if scheme is None else scheme
    if encoding is not None and not row.coordinate_bytes:
        raise _unsupported(
            algorithm, "supports only one signature encoding", "encoding"
        )
    if hash is not None and not row.hashes:
        raise _unsupported(algorithm, "hashes internally and takes no hash", "hash")
    if mgf_hash is not None and chosen is not SignatureScheme.RSASSA_PSS:
        raise _unsupported(algorithm, "takes an MGF1 hash only with PSS", "mgf_hash")
    digest = hash or (row.hashes[0] if row.hashes else HashAlgorithm.SHA_512)
    return SignatureParameters(
        scheme=chosen,
        hash=digest,
        mgf_hash=mgf_hash or digest,
        encoding=encoding or SignatureEncoding.DER,
        salt_bytes=salt_bytes,
        prehashed=prehashed,
        external_mu=external_mu,
        context=context,
    )


def check_signature(
    algorithm: Algorithm,
    data: bytes,
    signature: bytes,
    parameters: SignatureParameters,
) -> None:
    """
    Check what `check_verifying` checks, and the length of a signature of fixed length.

    Raises:
        SignatureMismatchError: The signature has another length.
    """
    check_verifying(algorithm, data, parameters)
    if len(signature) != spec(algorithm).signature_bytes:
        raise SignatureMismatchError


def check_encapsulation(algorithm: Algorithm, ciphertext: bytes) -> None:
    """
    Check that an encapsulation is as long as the algorithm's are.

    Raises:
        InputSizeError: It is not (FIPS 203, section 7.3, ciphertext type check).
    """
    _check_length("ciphertext", ciphertext, spec(algorithm).ciphertext_bytes)


def check_signing(
    algorithm: Algorithm, data: bytes, parameters: SignatureParameters
) -> None:
    """
    Check that *data* may be signed with these parameters.

    Raises:
        UnsupportedOperationError: The algorithm is not used that way to sign.
        InputSizeError: *data* should be a digest or mu and is of another length, or the
            context is too long.
    """
    row = spec(algorithm)
    _check_common(row, data, parameters)
    if row.hashes and parameters.hash not in row.hashes:
        allowed = ", ".join(row.hashes)
        raise _unsupported(algorithm, f"signs only with {allowed}", "hash")
    if parameters.scheme is SignatureScheme.RSASSA_PSS:
        if parameters.mgf_hash is not parameters.hash:
            raise _unsupported(
                algorithm, "uses the same hash for message and MGF1", "mgf_hash"
            )
        if parameters.salt_bytes not in {None, parameters.hash.digest_bytes}:
            raise _unsupported(
                algorithm, "signs only with a salt as long as the hash", "salt_bytes"
            )


def check_verifying(
    algorithm: Algorithm, data: bytes, parameters: SignatureParameters
) -> None:
    """
    Check that a signature over *data* may be verified with these parameters.

    Raises:
        UnsupportedOperationError: The algorithm is not used that way.
        InputSizeError: *data* should be a digest or mu and is of another length, or the
            context or the salt can't be that long.
    """
    row = spec(algorithm)
    _check_common(row, data, parameters)
    if row.verify_hashes and parameters.hash not in row.verify_hashes:
        allowed = ", ".join(row.verify_hashes)
        raise _unsupported(algorithm, f"verifies only with {allowed}", "hash")
    if parameters.salt_bytes is not None:
        longest = row.modulus_bits // 8 - parameters.hash.digest_bytes - 2
        if not 0 <= parameters.salt_bytes <= longest:
            raise InputSizeError(
                "salt_bytes", actual=parameters.salt_bytes, maximum=longest
            )


def _check_common(
    row: AlgorithmSpec, data: bytes, parameters: SignatureParameters
) -> None:
    algorithm = row.algorithm
    if parameters.scheme not in row.schemes:
        allowed = ", ".join(row.schemes) or "no scheme"
        raise _unsupported(algorithm, f"supports {allowed}", "scheme")
    if parameters.encoding is not SignatureEncoding.DER and not row.coordinate_bytes:
        raise _unsupported(
            algorithm, "supports only one signature encoding", "encoding"
        )
    is_pss = parameters.scheme is SignatureScheme.RSASSA_PSS
    if parameters.salt_bytes is not None and not is_pss:
        raise _unsupported(algorithm, "takes a salt length only with PSS", "salt_bytes")
    _check_context(row, parameters)
    if parameters.prehashed and not row.hashes:
        raise _unsupported(algorithm, "signs whole messages, never digests", "digest")
    if parameters.prehashed:
        _check_length("digest", data, parameters.hash.digest_bytes)
    elif parameters.external_mu:
        _check_length("mu", data, MU_BYTES)


def _check_context(row: AlgorithmSpec, parameters: SignatureParameters) -> None:
    size, most = len(parameters.context), row.max_context_bytes
    if parameters.external_mu and not row.takes_mu:
        raise _unsupported(row.algorithm, "does not support external mu", "mu")
    if size and parameters.external_mu:
        raise _unsupported(
            row.algorithm,
            "takes no context with mu, which already includes it",
            "context",
        )
    if size and not most:
        raise _unsupported(row.algorithm, "takes no context", "context")
    if size > most:
        raise InputSizeError("context", actual=size, maximum=most)


def _check_length(field: str, data: bytes, size: int) -> None:
    if len(data) != size:
        raise InputSizeError(field, actual=len(data), minimum=size, maximum=size)


def _unsupported(
    algorithm: Algorithm, rule: str, field: str
) -> UnsupportedOperationError:
    return UnsupportedOperationError(
        f"{algorithm} {rule}.", algorithm=algorithm.value, field=field
    )


def signature_input(
    algorithm: Algorithm,
    message: bytes | None,
    digest: bytes | None,
    mu: bytes | None,
    *,
    is_signing: bool,
    scheme: SignatureScheme | None,
    hash: HashAlgorithm | None,
    encoding: SignatureEncoding | None,
    context: bytes,
    mgf_hash: HashAlgorithm | None = None,
    salt_bytes: int | None = None,
) -> tuple[bytes, SignatureParameters]:
    """
    Return what a handle signs, or verifies a signature of, and how.

    Raises:
        InvalidInputError: Not exactly one of the three is given.
        UnsupportedOperationError: The algorithm is not used that way.
        InputSizeError: *digest*, *mu* or *context* is of another length, or
            *salt_bytes* doesn't fit into the modulus.
    """
    parameters = signature_parameters(
        algorithm,
        scheme=scheme,
        hash=hash,
        encoding=encoding,
        mgf_hash=mgf_hash,
        salt_bytes=salt_bytes,
        prehashed=digest is not None,
        context=context,
        external_mu=mu is not None,
    )
    data = _the_one(message, digest, mu)
    (check_signing if is_signing else check_verifying)(algorithm, data, parameters)
    return data, parameters


def raw_signature_input(
    row: AlgorithmSpec, data: bytes, encoding: SignatureEncoding | None
) -> tuple[bytes, SignatureParameters]:
    """
    Return what a handle signs of data that is not hashed, and how.

    A digest longer than the curve's hash counts with its leftmost bits, and a shorter
    one with zeros before it, so that every ECDSA digest has the length of that hash.

    Raises:
        UnsupportedOperationError: It is no RSA or ECDSA key, or RSA has an encoding.
        InputSizeError: The data is empty or too long.

    Standard:
        RFC 8017, section 9.2, steps 3 to 5; FIPS 186-5, section 6.4.1, step 2.
    """
    algorithm = row.algorithm
    if row.coordinate_bytes:
        _check_raw(data, _LONGEST_DIGEST)
        size = row.hashes[0].digest_bytes
        parameters = signature_parameters(algorithm, encoding=encoding, prehashed=True)
        return data[:size].rjust(size, b"\0"), parameters
    if not row.modulus_bits:
        raise _unsupported(
            algorithm, "always hashes; only RSA and ECDSA sign raw data", "key_id"
        )
    _check_raw(data, row.modulus_bits // 8 - _PKCS1_BYTES)
    pkcs1 = SignatureScheme.RSASSA_PKCS1_V1_5
    parameters = signature_parameters(algorithm, scheme=pkcs1, encoding=encoding)
    return data, replace(parameters, raw=True)


def _check_raw(data: bytes, most: int) -> None:
    if not 1 <= len(data) <= most:
        raise InputSizeError("data", actual=len(data), minimum=1, maximum=most)


def _the_one(message: bytes | None, digest: bytes | None, mu: bytes | None) -> bytes:
    data = message if message is not None else mu if digest is None else digest
    if data is None or (message, digest, mu).count(None) != 2:
        raise InvalidInputError(
            "Pass exactly one of message, digest and mu.", field="message"
        )
    return data
