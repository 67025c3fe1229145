# SPDX-License-Identifier: MIT
"""RSA: RSASSA-PSS, RSASSA-PKCS1-v1_5 and RSAES-OAEP."""

from __future__ import annotations

import math
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo

from hsm_core._internal.crypto.der import not_material, not_public_key
from hsm_core._internal.crypto.parameters import check_signature, check_signing
from hsm_core._internal.crypto.pyca.encoding import (
    HASHES,
    PublicKeyHandle,
    hash_of,
    load_private,
    load_public,
    mgf1,
    private_der,
)
from hsm_core.algorithms import Algorithm, SignatureScheme, spec
from hsm_core.errors import DecryptionError, InputSizeError, SignatureMismatchError
from hsm_core.protocols import Entropy, OAEPParameters, SignatureParameters

_PUBLIC_EXPONENT: Final = 65537
_HEALTH_BYTES: Final = 32
_APART_BITS: Final = 100
_SMALL_PRIMES: Final = math.prod(
    n for n in range(2, 752) if all(n % d for d in range(2, math.isqrt(n) + 1))
)
_ROCA_POWERS: Final = {
    prime: frozenset(pow(65537, n, prime) for n in range(prime))
    for prime in range(3, 168)
    if _SMALL_PRIMES % prime == 0
}
"""Powers of 65537 modulo small primes; one key in 2^27 has none but them by chance."""


class RSAPublicHandle(PublicKeyHandle[rsa.RSAPublicKey]):
    """
    An RSA public key.

    Standard:
        FIPS 186-5, section 5; RFC 8017, sections 7.1.1, 8.1.2 and 8.2.2.
    """

    def __init__(self, algorithm: Algorithm, key: rsa.RSAPublicKey) -> None:
        super().__init__(algorithm, key)
        self._modulus_bytes = spec(algorithm).modulus_bits // 8

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """
        Check a signature, which is as long as the modulus.

        Standard:
            FIPS 186-5, section 5.4 (g): a salt of PSS is at most as long as the hash,
            where no other length is asked for.
        """
        check_signature(self._algorithm, data, signature, parameters)
        if parameters.raw:
            if self._recovered(signature) != data:
                raise SignatureMismatchError
            return
        salt_bytes = parameters.salt_bytes
        if parameters.scheme is SignatureScheme.RSASSA_PSS and salt_bytes is None:
            salt_bytes = self._salt_bytes(signature, parameters)
            if salt_bytes > parameters.hash.digest_bytes:
                raise SignatureMismatchError
        scheme = _signature_padding(parameters, salt_bytes)
        try:
            self._public.verify(signature, data, scheme, hash_of(parameters))
        except (InvalidSignature, ValueError):
            raise SignatureMismatchError from None

    def _recovered(self, signature: bytes) -> bytes | None:
        """Return what a PKCS#1 v1.5 signature pads, or None if its padding is wrong."""
        try:
            return self._public.recover_data_from_signature(
                signature, padding.PKCS1v15(), None
            )
        except (InvalidSignature, ValueError):
            return None

    def _salt_bytes(self, signature: bytes, parameters: SignatureParameters) -> int:
        """
        Read the salt's length out of a PSS signature that may be invalid.

        The library's verification with this length decides afterwards.

        Standard:
            RFC 8017, section 9.1.2, steps 5 to 10.
        """
        numbers = self._public.public_numbers()
        encoded = pow(int.from_bytes(signature), numbers.e, numbers.n)
        hash_bits = parameters.hash.digest_bytes * 8
        seed = (encoded >> 8) % (1 << hash_bits)
        masked_bits = self._modulus_bytes * 8 - hash_bits - 8
        mask = mgf1(
            parameters.mgf_hash, seed.to_bytes(hash_bits // 8), masked_bits // 8
        )
        block = (encoded >> (hash_bits + 8)) ^ int.from_bytes(mask)
        # Zeros, a one in a byte of its own, and the salt; the first bit doesn't count.
        return (block % (1 << (masked_bits - 1))).bit_length() // 8

    def encrypt(self, plaintext: bytes, parameters: OAEPParameters, /) -> bytes:
        """Return a ciphertext as long as the modulus."""
        limit = self._modulus_bytes - 2 * parameters.hash.digest_bytes - 2
        if len(plaintext) > limit:
            raise InputSizeError("plaintext", actual=len(plaintext), maximum=limit)
        return self._public.encrypt(plaintext, _oaep(parameters))


class RSAPrivateHandle(RSAPublicHandle):
    """
    An RSA key pair.

    Standard:
        FIPS 186-5, section 5; RFC 8017, sections 7.1.2, 8.1.1 and 8.2.1.
    """

    def __init__(self, algorithm: Algorithm, key: rsa.RSAPrivateKey) -> None:
        super().__init__(algorithm, key.public_key())
        self._private = key

    def sign(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """Return a signature as long as the modulus; a PSS salt as long as the hash."""
        check_signing(self._algorithm, data, parameters)
        is_pss = parameters.scheme is SignatureScheme.RSASSA_PSS
        salt_bytes = parameters.hash.digest_bytes if is_pss else None
        scheme = _signature_padding(parameters, salt_bytes)
        chosen = NoDigestInfo() if parameters.raw else hash_of(parameters)
        return self._private.sign(data, scheme, chosen)

    def decrypt(self, ciphertext: bytes, parameters: OAEPParameters, /) -> bytes:
        """Return the plaintext, or raise `DecryptionError` whatever is wrong."""
        if len(ciphertext) != self._modulus_bytes:
            raise DecryptionError
        try:
            return self._private.decrypt(ciphertext, _oaep(parameters))
        except ValueError:
            raise DecryptionError from None

    def decrypt_pkcs1(self, ciphertext: bytes, /) -> bytes:
        """Return the plaintext, or what OpenSSL makes of a ciphertext it rejects."""
        if len(ciphertext) != self._modulus_bytes:
            raise DecryptionError
        try:
            return self._private.decrypt(ciphertext, padding.PKCS1v15())
        except ValueError:
            raise DecryptionError from None


def generate(algorithm: Algorithm, entropy: Entropy) -> bytes:
    """Return PKCS#8 of a fresh key, after a health test of the generator."""
    entropy.random_bytes(_HEALTH_BYTES)
    bits = spec(algorithm).modulus_bits
    return private_der(rsa.generate_private_key(_PUBLIC_EXPONENT, bits))


def load(algorithm: Algorithm, material: bytes, *, trusted: bool) -> RSAPrivateHandle:
    """Load PKCS#8 with a modulus of the exact length and exponent 65537."""
    # The costly check comes last: it grows with the cube of the length.
    key = _load_fitting(algorithm, material, trusted=True)
    if not trusted:
        key = _load_fitting(algorithm, material, trusted=False)
        if not _is_hard(key.private_numbers(), key.key_size // 2):
            raise not_material(algorithm)
    return RSAPrivateHandle(algorithm, key)


def _is_hard(numbers: rsa.RSAPrivateNumbers, half_bits: int) -> bool:
    """
    Return whether the modulus resists what factors badly chosen ones at once.

    The library sees that the numbers belong together, not that they were well chosen.

    Standard:
        FIPS 186-5, appendix A.1.1: the primes are half as long as the modulus and
        differ in their first 100 bits, and the private exponent is long. RFC 8017,
        section 3.2: it is less than the modulus. CVE-2017-15361 (ROCA): modulo small
        primes, a modulus of one maker's generator is a power of 65537.
    """
    p, q = numbers.p, numbers.q
    return (
        p.bit_length() == q.bit_length() == half_bits
        and abs(p - q) >> (half_bits - _APART_BITS) > 0
        and 1 << half_bits < numbers.d < p * q
        and not all(p * q % n in powers for n, powers in _ROCA_POWERS.items())
    )


def _load_fitting(
    algorithm: Algorithm, material: bytes, *, trusted: bool
) -> rsa.RSAPrivateKey:
    key = load_private(algorithm, material, trusted=trusted)
    if not isinstance(key, rsa.RSAPrivateKey) or not _fits(algorithm, key.public_key()):
        raise not_material(algorithm)
    return key


def load_public_key(algorithm: Algorithm, public_der: bytes) -> RSAPublicHandle:
    """
    Load SubjectPublicKeyInfo with a modulus of the exact length and e = 65537.

    Standard:
        SP 800-89, section 5.3.3: the modulus has no factor below 752.
    """
    key = load_public(algorithm, public_der)
    if not isinstance(key, rsa.RSAPublicKey) or not _fits(algorithm, key):
        raise not_public_key(algorithm)
    if math.gcd(key.public_numbers().n, _SMALL_PRIMES) != 1:
        raise not_public_key(algorithm)
    return RSAPublicHandle(algorithm, key)


def _fits(algorithm: Algorithm, key: rsa.RSAPublicKey) -> bool:
    return (
        key.key_size == spec(algorithm).modulus_bits
        and key.public_numbers().e == _PUBLIC_EXPONENT
    )


def _signature_padding(
    parameters: SignatureParameters, salt_bytes: int | None
) -> padding.AsymmetricPadding:
    if salt_bytes is None:
        return padding.PKCS1v15()
    return padding.PSS(padding.MGF1(HASHES[parameters.mgf_hash]), salt_bytes)


def _oaep(parameters: OAEPParameters) -> padding.OAEP:
    return padding.OAEP(
        mgf=padding.MGF1(HASHES[parameters.mgf_hash]),
        algorithm=HASHES[parameters.hash],
        label=parameters.label or None,
    )
