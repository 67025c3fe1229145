# SPDX-License-Identifier: MIT
"""Elliptic curves: ECDSA and ECDH on prime curves, Ed25519, Ed448 and X25519."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final, TypeAlias, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, x25519
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)

from hsm_core._internal.crypto.parameters import (
    check_signature,
    check_signing,
    check_verifying,
)
from hsm_core._internal.crypto.pyca.encoding import (
    HASHES,
    PublicKeyHandle,
    load_peer,
    not_a_peer,
    private_der,
)
from hsm_core.algorithms import (
    ALGORITHMS,
    Algorithm,
    HashAlgorithm,
    SignatureEncoding,
    spec,
)
from hsm_core.errors import MalformedError, SignatureMismatchError
from hsm_core.protocols import Entropy, SignatureParameters

_OIDS: Final = {
    oid.dotted_string: oid
    for name, oid in vars(ec.EllipticCurveOID).items()
    if name.isupper()
}
CURVES: Final[dict[Algorithm, ec.EllipticCurve]] = {
    row.algorithm: ec.get_curve_for_oid(_OIDS[row.curve_oid])()
    for row in ALGORITHMS.values()
    if row.curve_oid
}
"""Every curve of the table, as the library has it."""

_HEALTH_BYTES: Final = 32


class ECDSAPublicHandle(PublicKeyHandle[ec.EllipticCurvePublicKey]):
    """
    An ECDSA public key.

    Standard:
        FIPS 186-5, section 6.4.2.
    """

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """Check a signature in the encoding asked for, and in no other."""
        check_verifying(self._algorithm, data, parameters)
        try:
            if parameters.encoding is SignatureEncoding.P1363:
                signature = p1363_to_der(
                    signature, spec(self._algorithm).coordinate_bytes
                )
            method = _method_of(parameters.hash, parameters.prehashed)
            self._public.verify(signature, data, method)
        except (InvalidSignature, MalformedError, ValueError):
            raise SignatureMismatchError from None


class ECDSAPrivateHandle(ECDSAPublicHandle):
    """
    An ECDSA key pair.

    Standard:
        FIPS 186-5, section 6.4.1; the per-message secret is the library's. SP 800-56A,
        section 5.7.1.2, cofactor 1.
    """

    def __init__(self, algorithm: Algorithm, key: ec.EllipticCurvePrivateKey) -> None:
        super().__init__(algorithm, key.public_key())
        self._private = key

    def sign(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """Return a signature, in DER or of twice the coordinate's length."""
        check_signing(self._algorithm, data, parameters)
        return self.sign_again(data, parameters)

    def sign_again(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """Return a signature; see `BaseHandle.sign_again`."""
        if not parameters.prehashed:
            state = _empty_hash(parameters.hash).copy()
            state.update(data)
            data = state.finalize()
        signature = self._private.sign(data, _method_of(parameters.hash, True))
        if parameters.encoding is SignatureEncoding.P1363:
            return der_to_p1363(signature, spec(self._algorithm).coordinate_bytes)
        return signature

    def agree(self, peer_public_der: bytes, /) -> bytes:
        """Return the x coordinate of the shared point, at full length."""
        key = load_peer(self._algorithm, peer_public_der)
        peer = cast("ec.EllipticCurvePublicKey", key)
        return self._private.exchange(ec.ECDH(), peer)


@cache
def _method_of(hash: HashAlgorithm, prehashed: bool) -> ec.ECDSA:
    """Return ECDSA with a hash, or over a digest; making one takes microseconds."""
    chosen = HASHES[hash]
    return ec.ECDSA(Prehashed(chosen) if prehashed else chosen)


@cache
def _empty_hash(hash: HashAlgorithm) -> hashes.Hash:
    """Return a hash to be copied, which is faster than to look its algorithm up."""
    return hashes.Hash(HASHES[hash])


def der_to_p1363(signature: bytes, coordinate_bytes: int) -> bytes:
    """
    Return r ‖ s of a DER signature.

    Args:
        signature: SEQUENCE of two INTEGERs (RFC 3279, section 2.2.3), strict DER.

        coordinate_bytes: Length of each half of the result.

    Raises:
        MalformedError: It is no such DER, or a number is negative or too long.
    """
    try:
        r, s = decode_dss_signature(signature)
        return r.to_bytes(coordinate_bytes, "big") + s.to_bytes(coordinate_bytes, "big")
    except (ValueError, OverflowError):
        raise _malformed() from None


def p1363_to_der(signature: bytes, coordinate_bytes: int) -> bytes:
    """
    Return the DER form of r ‖ s.

    Raises:
        MalformedError: *signature* is not exactly twice *coordinate_bytes* long.
    """
    if len(signature) != 2 * coordinate_bytes:
        raise _malformed()
    r = int.from_bytes(signature[:coordinate_bytes], "big")
    s = int.from_bytes(signature[coordinate_bytes:], "big")
    return encode_dss_signature(r, s)


def generate_ecdsa(algorithm: Algorithm, entropy: Entropy) -> bytes:
    """Return PKCS#8 of a fresh key, after a health test of the generator."""
    entropy.random_bytes(_HEALTH_BYTES)
    return private_der(ec.generate_private_key(CURVES[algorithm]))


def _malformed() -> MalformedError:
    return MalformedError("signature is not in the requested encoding.")


_PrivateKey: TypeAlias = ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
_PublicKey: TypeAlias = ed25519.Ed25519PublicKey | ed448.Ed448PublicKey


class EdDSAPublicHandle(PublicKeyHandle[_PublicKey]):
    """
    An Ed25519 or Ed448 public key.

    Standard:
        RFC 8032, sections 5.1.7 and 5.2.7; Ed448 with an empty context.
    """

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """Check a signature of 64 or 114 bytes."""
        check_signature(self._algorithm, data, signature, parameters)
        try:
            self._public.verify(signature, data)
        except InvalidSignature:
            raise SignatureMismatchError from None


class EdDSAPrivateHandle(EdDSAPublicHandle):
    """
    An Ed25519 or Ed448 key pair.

    Standard:
        RFC 8032, sections 5.1.6 and 5.2.6.
    """

    def __init__(self, algorithm: Algorithm, key: _PrivateKey) -> None:
        super().__init__(algorithm, key.public_key())
        self._private = key

    def sign(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """Return a signature; the same message gives the same one."""
        check_signing(self._algorithm, data, parameters)
        return self._private.sign(data)


class X25519Handle(PublicKeyHandle[x25519.X25519PublicKey]):
    """
    An X25519 key pair.

    Standard:
        RFC 7748, section 6.1.
    """

    def __init__(self, algorithm: Algorithm, key: x25519.X25519PrivateKey) -> None:
        super().__init__(algorithm, key.public_key())
        self._private = key

    def agree(self, peer_public_der: bytes, /) -> bytes:
        """Return the shared secret; one of zeros alone is refused."""
        peer = cast(
            "x25519.X25519PublicKey", load_peer(self._algorithm, peer_public_der)
        )
        try:
            return self._private.exchange(peer)
        except ValueError:
            raise not_a_peer(self._algorithm) from None


FROM_SEED: Final[
    dict[Algorithm, Callable[[bytes], _PrivateKey | x25519.X25519PrivateKey]]
] = {
    Algorithm.ED25519: ed25519.Ed25519PrivateKey.from_private_bytes,
    Algorithm.ED448: ed448.Ed448PrivateKey.from_private_bytes,
    Algorithm.X25519: x25519.X25519PrivateKey.from_private_bytes,
}
"""Constructors of private keys from their seeds."""


def generate_seeded(algorithm: Algorithm, entropy: Entropy) -> bytes:
    """Return PKCS#8 of a fresh key, whose seed comes from *entropy*."""
    seed = entropy.random_bytes(spec(algorithm).private_bytes)
    return private_der(FROM_SEED[algorithm](seed))
