# SPDX-License-Identifier: MIT
"""Public keys and signatures in the formats of SSH."""

from __future__ import annotations

import base64
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_ssh_public_key,
)

from hsm_cli.interfaces.ssh_agent.encoding import (
    MalformedError,
    SSHReader,
    mpint,
    string,
)
from hsm_core.algorithms import (
    Algorithm,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
)
from hsm_core.operations import PublicKey, Sign

_RSA_SHA2_256: Final = 2
_RSA_SHA2_512: Final = 4
"""Flags of a signature request (RFC 9987, section 5.2)."""

_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "ecdsa-sha2-nistp256": hashes.SHA256(),
    "ecdsa-sha2-nistp384": hashes.SHA384(),
    "ecdsa-sha2-nistp521": hashes.SHA512(),
    "rsa-sha2-256": hashes.SHA256(),
    "rsa-sha2-512": hashes.SHA512(),
}


class Format(msgspec.Struct, frozen=True):
    """
    Signature format of a key.

    Attributes:
        name: Name of the signature algorithm, as in RFC 8332, 5656 and 8709.
        hash: Hash of the message, or None where the scheme hashes inside.
    """

    name: str
    scheme: SignatureScheme
    hash: HashAlgorithm | None = None


_RSA: Final = {
    _RSA_SHA2_256: Format(
        "rsa-sha2-256", SignatureScheme.RSASSA_PKCS1_V1_5, HashAlgorithm.SHA_256
    ),
    _RSA_SHA2_512: Format(
        "rsa-sha2-512", SignatureScheme.RSASSA_PKCS1_V1_5, HashAlgorithm.SHA_512
    ),
}
_OTHERS: Final = {
    Algorithm.ED25519: Format("ssh-ed25519", SignatureScheme.EDDSA),
    Algorithm.EC_P256: Format(
        "ecdsa-sha2-nistp256", SignatureScheme.ECDSA, HashAlgorithm.SHA_256
    ),
    Algorithm.EC_P384: Format(
        "ecdsa-sha2-nistp384", SignatureScheme.ECDSA, HashAlgorithm.SHA_384
    ),
    Algorithm.EC_P521: Format(
        "ecdsa-sha2-nistp521", SignatureScheme.ECDSA, HashAlgorithm.SHA_512
    ),
}
_RSA_KEYS: Final = frozenset(
    {Algorithm.RSA_2048, Algorithm.RSA_3072, Algorithm.RSA_4096}
)
ALGORITHMS: Final = _RSA_KEYS | frozenset(_OTHERS)
"""Algorithms of keys that SSH can use."""


def format_of(algorithm: Algorithm, flags: int) -> Format | None:
    """
    Return the signature format that a request asks for.

    Args:
        algorithm: Algorithm of the key, one of `ALGORITHMS`.

        flags: Flags of the request; they choose the hash of RSA.

    Returns:
        None for RSA with SHA-1, which OpenSSH servers refuse as well.
    """
    if algorithm not in _RSA_KEYS:
        return _OTHERS[algorithm]
    return next((form for flag, form in _RSA.items() if flags & flag), None)


def signing(key_id: str, message: bytes, form: Format) -> Sign:
    """Return the operation that signs *message* in a format."""
    is_ecdsa = form.scheme is SignatureScheme.ECDSA
    return Sign(
        key_id=key_id,
        message=message,
        scheme=form.scheme,
        hash=form.hash,
        encoding=SignatureEncoding.P1363 if is_ecdsa else None,
    )


def encode_signature(form: Format, signature: bytes) -> bytes:
    """Encode the signature of a `signing` operation for SSH."""
    if form.scheme is SignatureScheme.ECDSA:
        half = len(signature) // 2
        numbers = (signature[:half], signature[half:])
        signature = b"".join(mpint(int.from_bytes(part, "big")) for part in numbers)
    return string(form.name) + string(signature)


def encode_public_key(key: PublicKey) -> bytes:
    """Encode a public key of one of `ALGORITHMS` for SSH."""
    public = load_der_public_key(key.der)
    line = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return base64.b64decode(line.split()[1])


def verify(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """
    Return whether a signature of SSH is valid; RSA with SHA-1 is not.

    Args:
        public_key: Plain public key, without certificate.

        signature: Name of the format, and the signature in it.

        message: What is signed.
    """
    reader = SSHReader(signature)
    try:
        name, value = reader.text(), reader.string()
        reader.end()
        key = load_ssh_public_key(
            SSHReader(public_key).string() + b" " + base64.b64encode(public_key)
        )
        match key:
            case ed25519.Ed25519PublicKey() if name == "ssh-ed25519":
                key.verify(value, message)
            case rsa.RSAPublicKey() if name in {"rsa-sha2-256", "rsa-sha2-512"}:
                key.verify(value, message, padding.PKCS1v15(), _HASHES[name])
            case ec.EllipticCurvePublicKey() if name == _curve_name(key):
                numbers = SSHReader(value)
                r, s = (int.from_bytes(numbers.string(), "big") for _ in range(2))
                numbers.end()
                der = encode_dss_signature(r, s)
                key.verify(der, message, ec.ECDSA(_HASHES[name]))
            case _:
                return False
    except (InvalidSignature, MalformedError, UnsupportedAlgorithm, ValueError):
        return False
    except NotImplementedError:  # a compressed point
        return False
    return True


def _curve_name(key: ec.EllipticCurvePublicKey) -> str:
    bits = {"secp256r1": 256, "secp384r1": 384, "secp521r1": 521}[key.curve.name]
    return f"ecdsa-sha2-nistp{bits}"
