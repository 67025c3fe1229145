# SPDX-License-Identifier: MIT
"""
Parameters of a signature: defaults, and what each algorithm allows.

The same rules hold for requests to an HSM and for `hsm_core.primitives`, and every
handle checks them once more before it computes.
"""

from __future__ import annotations

from hsm_core.algorithms import (
    Algorithm,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
    spec,
)
from hsm_core.errors import InputSizeError, UnsupportedOperationError
from hsm_core.protocols import SignatureParameters

__all__ = ["check_signing", "check_verifying", "signature_parameters"]


def signature_parameters(
    algorithm: Algorithm,
    *,
    scheme: SignatureScheme | None = None,
    hash: HashAlgorithm | None = None,
    encoding: SignatureEncoding | None = None,
    mgf_hash: HashAlgorithm | None = None,
    salt_bytes: int | None = None,
    prehashed: bool = False,
) -> SignatureParameters:
    """
    Fill the defaults of an algorithm.

    Args:
        algorithm: What will sign.

        scheme: None means the algorithm's first scheme.

        hash: None means the first hash to sign with.

        encoding: ECDSA only; None means DER.

        mgf_hash: RSASSA-PSS only; None means *hash*.

        salt_bytes: RSASSA-PSS only.

        prehashed: The data will be a digest.

    Raises:
        UnsupportedOperationError: The algorithm doesn't sign, or has no such parameter.
    """
    row = spec(algorithm)
    if not row.schemes:
        raise _unsupported(algorithm, "has no signatures", "algorithm")
    chosen = row.schemes[0] if scheme is None else scheme
    if encoding is not None and not row.coordinate_bytes:
        raise _unsupported(algorithm, "has one signature encoding only", "encoding")
    if hash is not None and not row.hashes:
        raise _unsupported(algorithm, "hashes inside and takes no hash", "hash")
    if mgf_hash is not None and chosen is not SignatureScheme.RSASSA_PSS:
        raise _unsupported(algorithm, "takes an MGF1 hash with PSS only", "mgf_hash")
    digest = hash or (row.hashes[0] if row.hashes else HashAlgorithm.SHA_512)
    return SignatureParameters(
        scheme=chosen,
        hash=digest,
        mgf_hash=mgf_hash or digest,
        encoding=encoding or SignatureEncoding.DER,
        salt_bytes=salt_bytes,
        prehashed=prehashed,
    )


def check_signing(
    algorithm: Algorithm, data: bytes, parameters: SignatureParameters
) -> None:
    """
    Check that *data* may be signed with these parameters.

    Raises:
        UnsupportedOperationError: The algorithm is not used that way to sign.
        InputSizeError: *data* should be a digest and is of another length.
    """
    row = spec(algorithm)
    _check_common(algorithm, data, parameters)
    if row.hashes and parameters.hash not in row.hashes:
        allowed = ", ".join(row.hashes)
        raise _unsupported(algorithm, f"signs with {allowed} only", "hash")
    if parameters.scheme is SignatureScheme.RSASSA_PSS:
        if parameters.mgf_hash is not parameters.hash:
            raise _unsupported(algorithm, "signs with one hash for both", "mgf_hash")
        if parameters.salt_bytes not in {None, parameters.hash.digest_bytes}:
            raise _unsupported(
                algorithm, "signs with a salt as long as the hash", "salt_bytes"
            )


def check_verifying(
    algorithm: Algorithm, data: bytes, parameters: SignatureParameters
) -> None:
    """
    Check that a signature over *data* may be verified with these parameters.

    Raises:
        UnsupportedOperationError: The algorithm is not used that way.
        InputSizeError: *data* should be a digest and is of another length, or the salt
            can't be that long.
    """
    row = spec(algorithm)
    _check_common(algorithm, data, parameters)
    if parameters.salt_bytes is not None:
        longest = row.modulus_bits // 8 - parameters.hash.digest_bytes - 2
        if not 0 <= parameters.salt_bytes <= longest:
            raise InputSizeError(
                "salt_bytes", actual=parameters.salt_bytes, maximum=longest
            )


def _check_common(
    algorithm: Algorithm, data: bytes, parameters: SignatureParameters
) -> None:
    row = spec(algorithm)
    if parameters.scheme not in row.schemes:
        allowed = ", ".join(row.schemes) or "no scheme"
        raise _unsupported(algorithm, f"has {allowed}", "scheme")
    if parameters.encoding is not SignatureEncoding.DER and not row.coordinate_bytes:
        raise _unsupported(algorithm, "has one signature encoding only", "encoding")
    is_pss = parameters.scheme is SignatureScheme.RSASSA_PSS
    if parameters.salt_bytes is not None and not is_pss:
        raise _unsupported(algorithm, "takes a salt length with PSS only", "salt_bytes")
    if not parameters.prehashed:
        return
    if not row.hashes:
        raise _unsupported(algorithm, "signs whole messages, never digests", "digest")
    size = parameters.hash.digest_bytes
    if len(data) != size:
        raise InputSizeError("digest", actual=len(data), minimum=size, maximum=size)


def _unsupported(
    algorithm: Algorithm, rule: str, field: str
) -> UnsupportedOperationError:
    return UnsupportedOperationError(
        f"{algorithm} {rule}.", algorithm=algorithm.value, field=field
    )
