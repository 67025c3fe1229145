# SPDX-License-Identifier: MIT
"""Base of loaded keys, and the loader of the keys of composed mechanisms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NoReturn

from hsm_core._internal.crypto.der import subject_public_key_info
from hsm_core.algorithms import AESMode, Algorithm
from hsm_core.errors import UnsupportedOperationError
from hsm_core.protocols import OAEPParameters, SignatureParameters


class BaseHandle(ABC):
    """
    Base of every `KeyHandle`, without any operation.

    Families override what they support; all else raises `UnsupportedOperationError`.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._algorithm}>"

    @property
    def algorithm(self) -> Algorithm:
        """The key's algorithm."""
        return self._algorithm

    @abstractmethod
    def public_der(self) -> bytes:
        """Return SubjectPublicKeyInfo, DER; empty for a symmetric key."""

    def sign(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """Refuse to sign."""
        self._refuse("sign")

    def sign_again(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """Sign as `sign` does, with parameters and a length of data that it took."""
        return self.sign(data, parameters)

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """Refuse to verify."""
        self._refuse("verify a signature")

    def seal(
        self, nonce: bytes, plaintext: bytes, aad: bytes, start: bytes = b"", /
    ) -> bytes:
        """Refuse authenticated encryption."""
        self._refuse("encrypt with a nonce")

    def open(
        self, nonce: bytes, ciphertext: bytes | memoryview, aad: bytes, /
    ) -> bytes:
        """Refuse authenticated decryption."""
        self._refuse("decrypt with a nonce")

    def encrypt(self, plaintext: bytes, parameters: OAEPParameters, /) -> bytes:
        """Refuse public-key encryption."""
        self._refuse("encrypt with a public key")

    def decrypt(self, ciphertext: bytes, parameters: OAEPParameters, /) -> bytes:
        """Refuse public-key decryption."""
        self._refuse("decrypt with a private key")

    def encrypt_raw(
        self, mode: AESMode, iv: bytes, plaintext: bytes, aad: bytes = b"", /
    ) -> bytes:
        """Refuse encryption in a mode of AES."""
        self._refuse("encrypt with a given IV")

    def decrypt_raw(
        self, mode: AESMode, iv: bytes, ciphertext: bytes, aad: bytes = b"", /
    ) -> bytes:
        """Refuse decryption in a mode of AES."""
        self._refuse("decrypt with a given IV")

    def decrypt_pkcs1(self, ciphertext: bytes, /) -> bytes:
        """Refuse public-key decryption by PKCS#1 v1.5."""
        self._refuse("decrypt by PKCS#1 v1.5")

    def mac(self, data: bytes, /) -> bytes:
        """Refuse to compute a MAC."""
        self._refuse("compute a MAC")

    def encapsulate(self) -> tuple[bytes, bytes]:
        """Refuse to encapsulate."""
        self._refuse("encapsulate")

    def decapsulate(self, ciphertext: bytes, /) -> bytes:
        """Refuse to decapsulate."""
        self._refuse("decapsulate")

    def agree(self, peer_public_der: bytes, /) -> bytes:
        """Refuse key agreement."""
        self._refuse("agree on a shared secret")

    def derive(self, salt: bytes, info: bytes, length: int, /) -> bytes:
        """Refuse to derive."""
        self._refuse("derive a key")

    def wrap(self, data: bytes, /, *, padded: bool) -> bytes:
        """Refuse to wrap."""
        self._refuse("wrap a key")

    def unwrap(self, wrapped: bytes, /, *, padded: bool) -> bytes:
        """Refuse to unwrap."""
        self._refuse("unwrap a key")

    def _refuse(self, action: str) -> NoReturn:
        raise UnsupportedOperationError(
            f"This {self._algorithm} key can't {action}.",
            algorithm=self._algorithm.value,
        )


class RawPublicHandle(BaseHandle):
    """A key whose raw public half is what SubjectPublicKeyInfo contains."""

    def __init__(self, algorithm: Algorithm, raw_public: bytes) -> None:
        super().__init__(algorithm)
        self._raw_public = raw_public

    def public_der(self) -> bytes:
        """Return SubjectPublicKeyInfo (RFC 9881, RFC 9909, RFC 9935)."""
        return subject_public_key_info(self._algorithm, self._raw_public)
