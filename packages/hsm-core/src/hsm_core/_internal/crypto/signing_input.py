# SPDX-License-Identifier: MIT
"""Signing input: exactly one of a message, its digest or its mu."""

from __future__ import annotations

from hsm_core._internal.crypto.parameters import (
    check_signing,
    check_verifying,
    signature_parameters,
)
from hsm_core.algorithms import (
    Algorithm,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
)
from hsm_core.errors import InvalidInputError
from hsm_core.protocols import SignatureParameters


def signing_input(
    algorithm: Algorithm,
    message: bytes | None,
    digest: bytes | None,
    mu: bytes | None,
    *,
    scheme: SignatureScheme | None,
    hash: HashAlgorithm | None,
    encoding: SignatureEncoding | None,
    context: bytes,
) -> tuple[bytes, SignatureParameters]:
    """
    Return what a handle signs, and how.

    Raises:
        InvalidInputError: Not exactly one of the three is given.
        UnsupportedOperationError: The algorithm is not used that way.
        InputSizeError: *digest*, *mu* or *context* is of another length.
    """
    parameters = signature_parameters(
        algorithm,
        scheme=scheme,
        hash=hash,
        encoding=encoding,
        prehashed=digest is not None,
        context=context,
        external_mu=mu is not None,
    )
    data = _the_one(message, digest, mu)
    check_signing(algorithm, data, parameters)
    return data, parameters


def verification_input(
    algorithm: Algorithm,
    message: bytes | None,
    digest: bytes | None,
    mu: bytes | None,
    *,
    scheme: SignatureScheme | None,
    hash: HashAlgorithm | None,
    encoding: SignatureEncoding | None,
    mgf_hash: HashAlgorithm | None,
    salt_bytes: int | None,
    context: bytes,
) -> tuple[bytes, SignatureParameters]:
    """
    Return what a handle verifies a signature of, and how; errors as `signing_input`.

    Raises:
        InputSizeError: Besides, *salt_bytes* doesn't fit into the modulus.
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
    check_verifying(algorithm, data, parameters)
    return data, parameters


def _the_one(message: bytes | None, digest: bytes | None, mu: bytes | None) -> bytes:
    given = [data for data in (message, digest, mu) if data is not None]
    if len(given) != 1:
        raise InvalidInputError(
            "Pass exactly one of message, digest and mu.", field="message"
        )
    return given[0]
