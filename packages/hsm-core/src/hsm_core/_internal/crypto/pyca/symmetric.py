# SPDX-License-Identifier: MIT
"""Symmetric keys: AES, ChaCha20-Poly1305, HMAC, AES key wrap and HKDF."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from io import BytesIO
from operator import add
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, CTR
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap,
    aes_key_wrap_with_padding,
)
from cryptography.hazmat.primitives.padding import PKCS7

from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core._internal.crypto.pyca.encoding import HASHES
from hsm_core.algorithms import (
    ALGORITHMS,
    AESMode,
    Algorithm,
    Family,
    HashAlgorithm,
    spec,
)
from hsm_core.errors import DecryptionError, InputSizeError

NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
MOST_BYTES: Final = 2**31 - 1 - TAG_BYTES
"""Longest plaintext or additional data of one call: a limit of the library."""

_SHORT_BYTES: Final = 32 * 1024
"""Up to here, a new byte string costs less than one that is written in place."""


class SymmetricHandle(BaseHandle):
    """A key without a public half."""

    def public_der(self) -> bytes:
        """Return nothing."""
        return b""


class AEADHandle(SymmetricHandle):
    """
    An AES-GCM or ChaCha20-Poly1305 key.

    Standard:
        SP 800-38D with 96-bit IV and 128-bit tag; RFC 8439, section 2.8.
    """

    def __init__(self, algorithm: Algorithm, key: bytes) -> None:
        super().__init__(algorithm)
        self._key: AESGCM | ChaCha20Poly1305 = (
            ChaCha20Poly1305(key)
            if algorithm is Algorithm.CHACHA20_POLY1305
            else AESGCM(key)
        )
        self._encrypt = self._key.encrypt

    def seal(
        self, nonce: bytes, plaintext: bytes, aad: bytes, start: bytes = b"", /
    ) -> bytes:
        """Return start ‖ ciphertext ‖ tag."""
        short = len(plaintext) <= _SHORT_BYTES and len(aad) <= MOST_BYTES
        if short and len(nonce) == NONCE_BYTES:
            return start + self._encrypt(nonce, plaintext, aad)
        if len(nonce) != NONCE_BYTES or max(len(plaintext), len(aad)) > MOST_BYTES:
            _refuse_lengths(nonce, plaintext, aad)
        if not start:
            return self._encrypt(nonce, plaintext, aad)

        def write(view: memoryview) -> None:
            view[: len(start)] = start
            with view[len(start) :] as sealed:
                self._key.encrypt_into(nonce, plaintext, aad, sealed)

        return written(len(start) + len(plaintext) + TAG_BYTES, write)

    def seal_each(
        self,
        nonces: Sequence[bytes],
        plaintexts: Sequence[bytes],
        aads: Sequence[bytes],
        starts: Sequence[bytes],
    ) -> Iterable[bytes]:
        """Return the result of `seal` for each of many messages."""
        if max(map(len, plaintexts)) > _SHORT_BYTES:
            return map(self.seal, nonces, plaintexts, aads, starts)
        return map(add, starts, map(self._encrypt, nonces, plaintexts, aads))

    def open(
        self, nonce: bytes, ciphertext: bytes | memoryview, aad: bytes, /
    ) -> bytes:
        """Return the plaintext, or raise `DecryptionError` whatever is wrong."""
        if len(nonce) != NONCE_BYTES or len(ciphertext) < TAG_BYTES:
            raise DecryptionError
        length = len(ciphertext) - TAG_BYTES
        try:
            if length <= _SHORT_BYTES:
                return self._key.decrypt(nonce, ciphertext, aad)

            def write(view: memoryview) -> None:
                self._key.decrypt_into(nonce, ciphertext, aad, view)

            return written(length, write)
        except (InvalidTag, ValueError, OverflowError):
            raise DecryptionError from None

    def open_each(
        self,
        nonces: Sequence[bytes],
        ciphertexts: Sequence[memoryview],
        aads: Sequence[bytes],
    ) -> Iterable[bytes]:
        """Return the result of `open` for each of many; one fault refuses them all."""
        if max(map(len, ciphertexts)) > _SHORT_BYTES:
            return map(self.open, nonces, ciphertexts, aads)
        try:
            return list(map(self._key.decrypt, nonces, ciphertexts, aads))
        except (InvalidTag, ValueError, OverflowError):
            raise DecryptionError from None


def _refuse_lengths(nonce: bytes, plaintext: bytes, aad: bytes) -> None:
    for field, value, minimum, maximum in (
        ("nonce", nonce, NONCE_BYTES, NONCE_BYTES),
        ("plaintext", plaintext, 0, MOST_BYTES),
        ("aad", aad, 0, MOST_BYTES),
    ):
        if not minimum <= len(value) <= maximum:
            raise InputSizeError(
                field, actual=len(value), minimum=minimum, maximum=maximum
            )


BLOCK_BYTES: Final = 16
"""Block of AES."""


class AESHandle(SymmetricHandle):
    """
    An AES key for any mode, with IVs of the caller.

    Standard:
        SP 800-38A, sections 6.2 and 6.5; SP 800-38D with 96-bit IV and 128-bit tag; RFC
        5652, section 6.3.
    """

    def __init__(self, algorithm: Algorithm, key: bytes) -> None:
        super().__init__(algorithm)
        self._aes, self._gcm = AES(key), AESGCM(key)

    def encrypt_raw(
        self, mode: AESMode, iv: bytes, plaintext: bytes, aad: bytes = b"", /
    ) -> bytes:
        """Encrypt; without padding, CBC takes whole blocks."""
        _check_iv(mode, iv)
        if max(len(plaintext), len(aad)) > MOST_BYTES:
            raise InputSizeError("plaintext", actual=len(plaintext), maximum=MOST_BYTES)
        if mode is AESMode.GCM:
            return self._gcm.encrypt(iv, plaintext, aad)
        if mode is AESMode.CBC and len(plaintext) % BLOCK_BYTES:
            raise InputSizeError(
                "plaintext",
                actual=len(plaintext),
                maximum=MOST_BYTES,
                unit="bytes, a multiple of 16",
            )
        encryptor = Cipher(self._aes, _MODES[mode](iv)).encryptor()
        if mode is AESMode.CBC_PKCS7:
            padder = PKCS7(8 * BLOCK_BYTES).padder()
            plaintext = padder.update(plaintext) + padder.finalize()
        return encryptor.update(plaintext) + encryptor.finalize()

    def decrypt_raw(
        self, mode: AESMode, iv: bytes, ciphertext: bytes, aad: bytes = b"", /
    ) -> bytes:
        """Decrypt, or raise `DecryptionError` whatever is wrong with the ciphertext."""
        _check_iv(mode, iv)
        try:
            if mode is AESMode.GCM:
                return self._gcm.decrypt(iv, ciphertext, aad)
            decryptor = Cipher(self._aes, _MODES[mode](iv)).decryptor()
            plaintext = decryptor.update(ciphertext) + decryptor.finalize()
            if mode is not AESMode.CBC_PKCS7:
                return plaintext
            unpadder = PKCS7(8 * BLOCK_BYTES).unpadder()
            return unpadder.update(plaintext) + unpadder.finalize()
        except (InvalidTag, ValueError, OverflowError):
            raise DecryptionError from None


_MODES: Final[dict[AESMode, Callable[[bytes], CBC | CTR]]] = {
    AESMode.CBC: CBC,
    AESMode.CBC_PKCS7: CBC,
    AESMode.CTR: CTR,
}


def _check_iv(mode: AESMode, iv: bytes) -> None:
    size = NONCE_BYTES if mode is AESMode.GCM else BLOCK_BYTES
    if len(iv) != size:
        raise InputSizeError("iv", actual=len(iv), minimum=size, maximum=size)


class HMACHandle(SymmetricHandle):
    """
    An HMAC key.

    Standard:
        FIPS 198-1 over FIPS 180-4.
    """

    def __init__(self, algorithm: Algorithm, key: bytes) -> None:
        super().__init__(algorithm)
        self._keyed = HMAC(key, HASHES[spec(algorithm).hashes[0]])

    def mac(self, data: bytes, /) -> bytes:
        """Return the MAC, as long as the hash."""
        context = self._keyed.copy()
        context.update(data)
        return context.finalize()


_MOST_BLOCKS: Final = 255

HKDF_ALGORITHMS: Final = {
    row.hashes[0]: row.algorithm
    for row in ALGORITHMS.values()
    if row.family is Family.KDF
}
"""Algorithm whose self-test covers HKDF with a hash."""


class HKDFHandle(SymmetricHandle):
    """
    An HKDF key.

    Standard:
        RFC 5869, sections 2.2 and 2.3; SP 800-56C, section 5.1.
    """

    def __init__(self, algorithm: Algorithm, key: bytes) -> None:
        super().__init__(algorithm)
        self._key = key

    def derive(self, salt: bytes, info: bytes, length: int, /) -> bytes:
        """Return *length* bytes; an empty *salt* stands for zeros."""
        hashed = spec(self._algorithm).hashes[0]
        return hkdf(hashed, self._key, salt=salt, info=info, length=length)


def hkdf(
    hash: HashAlgorithm, secret: bytes, *, salt: bytes, info: bytes, length: int
) -> bytes:
    """
    Return *length* bytes derived from a secret of any length.

    Raises:
        InputSizeError: *length* is not between 1 and 255 times the hash's length.

    Standard:
        RFC 5869; SP 800-56C, section 5.1, with HMAC and the feedback mode of
        SP 800-108.
    """
    longest = _MOST_BLOCKS * hash.digest_bytes
    if not 1 <= length <= longest:
        raise InputSizeError("length", actual=length, minimum=1, maximum=longest)
    return HKDF(HASHES[hash], length, salt, info).derive(secret)


def x963(hash: HashAlgorithm, secret: bytes, *, info: bytes, length: int) -> bytes:
    """
    Return *length* bytes derived from a shared secret.

    Standard:
        ANSI X9.63, section 5.6.3; SEC 1, section 3.6.1; SP 800-56C, section 4.
    """
    return X963KDF(HASHES[hash], length, info).derive(secret)


MOST_WRAPPED_BYTES: Final = 2**31 - 8
"""Longest input of one call: a limit of the library."""

_BLOCK_BYTES: Final = 8
_LEAST_UNPADDED: Final = 16


class KeyWrapHandle(SymmetricHandle):
    """
    An AES key-wrapping key.

    Standard:
        SP 800-38F, sections 6.2 (KW) and 6.3 (KWP).
    """

    def __init__(self, algorithm: Algorithm, key: bytes) -> None:
        super().__init__(algorithm)
        self._key = key

    def wrap(self, data: bytes, /, *, padded: bool) -> bytes:
        """Return *data* wrapped; without padding it must be whole blocks."""
        least = 1 if padded else _LEAST_UNPADDED
        fits = padded or len(data) % _BLOCK_BYTES == 0
        if not (fits and least <= len(data) <= MOST_WRAPPED_BYTES):
            raise InputSizeError(
                "data",
                actual=len(data),
                minimum=least,
                maximum=MOST_WRAPPED_BYTES,
                unit="bytes" if padded else "bytes, a multiple of 8",
            )
        if padded:
            return aes_key_wrap_with_padding(self._key, data)
        return aes_key_wrap(self._key, data)

    def unwrap(self, wrapped: bytes, /, *, padded: bool) -> bytes:
        """Return what was wrapped, or raise `DecryptionError` whatever is wrong."""
        try:
            if padded:
                return aes_key_unwrap_with_padding(self._key, wrapped)
            return aes_key_unwrap(self._key, wrapped)
        except (InvalidUnwrap, ValueError, OverflowError):
            raise DecryptionError from None


def written(length: int, write: Callable[[memoryview], None]) -> bytes:
    """
    Return bytes that *write* fills.

    Args:
        length: Of the result, in bytes.

        write: Must write all of the view, which holds anything before; what it raises
            leaves nothing behind.
    """
    whole = BytesIO(_unset_bytes()(length))
    with whole.getbuffer() as view:
        write(view)
    return whole.getvalue()  # hands its buffer over, as nobody else has it


@cache
def _unset_bytes() -> Callable[[int], bytes]:
    """Return what allocates bytes; to zero a megabyte first takes a fifth more time."""
    try:
        import ctypes
    except ImportError:  # Python can be built without it.
        return bytes
    allocate = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(
        ("PyBytes_FromStringAndSize", ctypes.pythonapi)
    )

    def unset(length: int) -> bytes:
        found: bytes = allocate(None, length)
        return found

    return unset
