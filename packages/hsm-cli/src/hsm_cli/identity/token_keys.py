# SPDX-License-Identifier: MIT
"""
Signing keys of minted tokens: a secret, or a private key in a file.

Standard:
    RFC 7518 sections 3.2 to 3.4, RFC 8037 section 3.1.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hsm_cli.settings import TokenAlgorithm, TokenSettings
from hsm_core.errors import ConfigurationError
from hsm_core.secret_input import read_secret, read_secret_text

MIN_SECRET_BYTES: Final = 32
"""Shortest HS256 secret (RFC 7518, section 3.2)."""

_LEAST_RSA_BITS: Final = 2048
_FIELD: Final = "jwt_private_key"
_HEADERS: Final = {
    TokenAlgorithm.RS256: "RS256",
    TokenAlgorithm.ES256: "ES256",
    TokenAlgorithm.EDDSA: "EdDSA",
}
_KINDS: Final = {
    TokenAlgorithm.RS256: f"an RSA key of at least {_LEAST_RSA_BITS} bits",
    TokenAlgorithm.ES256: "an EC key on P-256",
    TokenAlgorithm.EDDSA: "an Ed25519 key",
}


@dataclass(frozen=True, slots=True, repr=False)
class TokenSigner:
    """
    Signer of tokens.

    Attributes:
        algorithm: ``alg`` of their header.
        kid: Their ``kid``; empty for none.
        sign: Returns the signature of bytes in JWS format.
    """

    algorithm: str
    kid: str
    sign: Callable[[bytes], bytes]


def secret_signer(secret: bytes, kid: str = "") -> TokenSigner:
    """Return an HS256 signer with a secret of at least `MIN_SECRET_BYTES`."""
    return TokenSigner("HS256", kid, lambda data: hmac.digest(secret, data, "sha256"))


def has_key(settings: TokenSettings) -> bool:
    """Return whether a signing key is configured."""
    return bool(settings.jwt_secret or settings.private_key)


def open_signer(settings: TokenSettings) -> TokenSigner:
    """
    Read the signing key of the settings.

    Raises:
        ConfigurationError: The key is missing, unreadable or for another algorithm.
        UnsafeFileModeError: Other users may read the file.
    """
    algorithm = settings.algorithm
    if algorithm is TokenAlgorithm.HS256:
        if not settings.jwt_secret:
            raise ConfigurationError(
                "hs256 requires --jwt-secret. To use --jwt-private-key, pass another "
                "--jwt-algorithm.",
                field="jwt_secret",
            )
        secret = read_secret(
            settings.jwt_secret,
            field="jwt_secret",
            minimum=MIN_SECRET_BYTES,
            exact=None,
        )
        return secret_signer(secret, settings.kid)
    if not settings.private_key:
        raise ConfigurationError(
            f"{algorithm.value} requires --jwt-private-key.", field=_FIELD
        )
    text = read_secret_text(f"@{settings.private_key}", field=_FIELD)
    return TokenSigner(_HEADERS[algorithm], settings.kid, _signing(text, algorithm))


def _signing(text: str, algorithm: TokenAlgorithm) -> Callable[[bytes], bytes]:
    # Deferred: importing these takes longer than a short command.
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    key = _load(text)
    match key, algorithm:
        case rsa.RSAPrivateKey(), TokenAlgorithm.RS256 if (
            key.key_size >= _LEAST_RSA_BITS
        ):
            return lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        case ec.EllipticCurvePrivateKey(), TokenAlgorithm.ES256 if isinstance(
            key.curve, ec.SECP256R1
        ):

            def sign(data: bytes) -> bytes:
                der = key.sign(data, ec.ECDSA(hashes.SHA256()))
                return b"".join(n.to_bytes(32) for n in decode_dss_signature(der))

            return sign
        case ed25519.Ed25519PrivateKey(), TokenAlgorithm.EDDSA:
            return key.sign
        case _:
            raise ConfigurationError(
                f"{_FIELD}: {algorithm.value} requires {_KINDS[algorithm]}.",
                field=_FIELD,
            )


def _load(text: str) -> object:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(text.encode(), None)
    except TypeError:
        problem = "encrypted private keys are not supported. Decrypt it first."
    except (ValueError, UnsupportedAlgorithm):
        problem = "the file must be a PEM private key."
    raise ConfigurationError(f"{_FIELD}: {problem}", field=_FIELD)
