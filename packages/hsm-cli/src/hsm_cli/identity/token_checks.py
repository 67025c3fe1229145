# SPDX-License-Identifier: MIT
"""
Signature verification of tokens with a local key.

As on servers, each key has exactly one algorithm, whatever the token's header says.

Standard:
    RFC 7515 section 5.2, RFC 7517, RFC 8725 section 3.1.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any, Final

from hsm_core.errors import AuthenticationError, InvalidInputError

_FIELD: Final = "verify_key"
_PUBLIC: Final = ("kty", "crv", "x", "y", "n", "e")


def check_by_secret(token: str, secret: bytes) -> None:
    """
    Verify an HS256 token.

    Raises:
        AuthenticationError: The signature does not match the secret.
    """
    from joserfc import jwk

    if not _is_signed(token, jwk.OctKey.import_key(secret), "HS256"):
        raise AuthenticationError(
            "The signature of the token does not match this secret with HS256."
        )


def check_by_keys(token: str, header: Mapping[str, Any], data: bytes) -> None:
    """
    Verify an RS256, ES256 or EdDSA token.

    Args:
        token: The token.

        header: Its header; its ``kid`` selects keys of a set.

        data: A public key as PEM, a JWK, or a JWK Set.

    Raises:
        InvalidInputError: It is none of these, or has no key of a supported type.
        AuthenticationError: The signature does not match any of the keys.
    """
    found = _keys_of_json(data) if data.lstrip()[:1] == b"{" else [("", _of_pem(data))]
    usable = [(kid, key, alg) for kid, key in found if (alg := _algorithm_of(key))]
    if not usable:
        raise InvalidInputError(
            "The file has no RSA, EC P-256 or Ed25519 public key.",
            field=_FIELD,
        )
    kid = header.get("kid")
    if not any(
        _is_signed(token, key, alg)
        for name, key, alg in usable
        if not name or kid is None or name == kid
    ):
        raise AuthenticationError(
            "The signature of the token does not match this key."
            if len(usable) == 1
            else "The signature of the token does not match its kid's key in this set."
        )


def _is_signed(token: str, key: Any, algorithm: str) -> bool:
    from joserfc import jwt
    from joserfc.errors import JoseError

    try:
        with warnings.catch_warnings():
            # EdDSA does not name the curve (RFC 9864); the key does.
            warnings.simplefilter("ignore")
            jwt.decode(token, key, algorithms=[algorithm])
    except (JoseError, ValueError):
        return False
    return True


def _of_pem(data: bytes) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from joserfc import jwk
    from joserfc.errors import JoseError

    try:
        load_pem_public_key(data)
        for kind in (jwk.RSAKey, jwk.ECKey, jwk.OKPKey):
            try:
                return kind.import_key(data)
            except (JoseError, ValueError, TypeError):
                continue
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise InvalidInputError(
        "The file must be a PEM public key, a JWK or a JWK Set.", field=_FIELD
    )


def _keys_of_json(data: bytes) -> list[tuple[str, Any]]:
    """Return the public part of each key with its ``kid``; skip invalid keys."""
    from joserfc import jwk
    from joserfc.errors import JoseError

    try:
        known = json.loads(data)
        rows = known.get("keys", [known])
        found = []
        for row in rows:
            try:
                public = {name: row[name] for name in _PUBLIC if name in row}
                found.append((str(row.get("kid", "")), jwk.import_key(public)))
            except (JoseError, ValueError, TypeError, LookupError, AttributeError):
                continue
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InvalidInputError(
            "The file must be a PEM public key, a JWK or a JWK Set.", field=_FIELD
        ) from None
    return found


def _algorithm_of(key: Any) -> str:
    """Return the algorithm of a key; empty if tokens do not support it."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    match key.raw_value:
        case rsa.RSAPublicKey():
            return "RS256"
        case ec.EllipticCurvePublicKey() as raw if isinstance(raw.curve, ec.SECP256R1):
            return "ES256"
        case ed25519.Ed25519PublicKey():
            return "EdDSA"
        case _:
            return ""
