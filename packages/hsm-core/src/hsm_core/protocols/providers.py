# SPDX-License-Identifier: MIT
"""Provider interface: algorithms, key handles, clock, entropy, root key."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

import msgspec

from hsm_core.algorithms import (
    AESMode,
    Algorithm,
    Family,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
)

__all__ = [
    "Clock",
    "CredentialKeys",
    "CryptoProvider",
    "Entropy",
    "KeyHandle",
    "MasterKeySource",
    "OAEPParameters",
    "ProviderPlugin",
    "SignatureParameters",
]


class Clock(Protocol):
    """Time, injected everywhere."""

    def now(self) -> int:
        """Return wall time, in microseconds since 1970-01-01T00:00:00Z."""
        ...

    def monotonic(self) -> float:
        """Return a time that never goes back, in seconds."""
        ...


class Entropy(Protocol):
    """Randomness, injected everywhere."""

    def random_bytes(self, length: int, /) -> bytes:
        """
        Return *length* bytes, unpredictable and never repeated.

        Raises:
            EntropyUnavailableError: The source failed its health test.
        """
        ...


class CredentialKeys(Protocol):
    """
    The keys that vouch for credentials, by the names in `Caller.credential_key`.

    What was agreed to with a credential counts no more when its key does not.
    """

    def trusted(self) -> Collection[str]:
        """Return the names of the keys that count now; may be asked by any thread."""
        ...


class MasterKeySource(Protocol):
    """Holder of the root, which seals the key ring and nothing else."""

    def seal(self, plaintext: bytes, context: bytes, /) -> bytes:
        """Return *plaintext* encrypted and bound to *context*."""
        ...

    def open(self, blob: bytes, context: bytes, /) -> bytes:
        """
        Return what `seal` was given.

        Raises:
            WrongMasterKeyError: It was sealed by another root, or changed.
        """
        ...


class SignatureParameters(msgspec.Struct, frozen=True, kw_only=True):
    """
    Signature parameters.

    Attributes:
        hash: Unused where the algorithm hashes inside.
        mgf_hash: Hash of MGF1, RSASSA-PSS only.
        salt_bytes: RSASSA-PSS only. To sign: None is the hash length. To verify: None
            accepts any length.
        prehashed: The data is the digest under *hash*, not the message.
        external_mu: ML-DSA only. The data is mu (FIPS 204, algorithm 7, line 6).
        context: ML-DSA, SLH-DSA and composites: up to 255 bytes.
        raw: RSASSA-PKCS1-v1_5 only. The data is padded as it is, without DigestInfo.
    """

    scheme: SignatureScheme
    hash: HashAlgorithm
    mgf_hash: HashAlgorithm
    encoding: SignatureEncoding = SignatureEncoding.DER
    salt_bytes: int | None = None
    prehashed: bool = False
    external_mu: bool = False
    context: bytes = b""
    raw: bool = False


class OAEPParameters(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of RSAES-OAEP (RFC 8017, section 7.1)."""

    hash: HashAlgorithm = HashAlgorithm.SHA_256
    mgf_hash: HashAlgorithm = HashAlgorithm.SHA_256
    label: bytes = b""


class KeyHandle(Protocol):
    """
    A key in its provider's own form, ready for use, safe for many threads.

    What the algorithm or the half of the key at hand can't do raises
    `UnsupportedOperationError`.
    """

    @property
    def algorithm(self) -> Algorithm:
        """The key's algorithm."""
        ...

    def public_der(self) -> bytes:
        """Return SubjectPublicKeyInfo, DER; empty for a symmetric key."""
        ...

    def sign(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """Return a signature over *data*."""
        ...

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """
        Check a signature.

        Raises:
            SignatureMismatchError: It is wrong, of whatever length or form.
        """
        ...

    def seal(
        self, nonce: bytes, plaintext: bytes, aad: bytes, start: bytes = b"", /
    ) -> bytes:
        """
        Return start ‖ ciphertext ‖ tag of an AEAD (SP 800-38D).

        Args:
            nonce: 12 bytes.

            plaintext: What to encrypt.

            aad: Authenticated, not encrypted.

            start: Copied to the front of the result, so that callers need not copy the
                ciphertext to put something before it.
        """
        ...

    def open(
        self, nonce: bytes, ciphertext: bytes | memoryview, aad: bytes, /
    ) -> bytes:
        """
        Return the plaintext of an AEAD; *ciphertext* is ciphertext ‖ tag.

        Raises:
            DecryptionError: Anything is wrong.
        """
        ...

    def encrypt(self, plaintext: bytes, parameters: OAEPParameters, /) -> bytes:
        """Return the RSAES-OAEP ciphertext, as long as the modulus."""
        ...

    def decrypt(self, ciphertext: bytes, parameters: OAEPParameters, /) -> bytes:
        """
        Return the RSAES-OAEP plaintext.

        Raises:
            DecryptionError: Anything is wrong.
        """
        ...

    def encrypt_raw(
        self, mode: AESMode, iv: bytes, plaintext: bytes, aad: bytes = b"", /
    ) -> bytes:
        """
        Return the AES ciphertext in a mode with this IV; of GCM ciphertext ‖ tag.

        Args:
            mode: Mode of operation.

            iv: 12 bytes for GCM, 16 for the others.

            plaintext: What to encrypt.

            aad: GCM only.

        Raises:
            InputSizeError: IV or plaintext are of another length than the mode takes.
        """
        ...

    def decrypt_raw(
        self, mode: AESMode, iv: bytes, ciphertext: bytes, aad: bytes = b"", /
    ) -> bytes:
        """
        Return what `encrypt_raw` was given.

        Raises:
            InputSizeError: The IV is of another length.
            DecryptionError: Anything else is wrong.
        """
        ...

    def decrypt_pkcs1(self, ciphertext: bytes, /) -> bytes:
        """
        Return the RSAES-PKCS1-v1_5 plaintext; random bytes where the padding is wrong.

        Raises:
            DecryptionError: It is not as long as the modulus, or no number below it.
        """
        ...

    def mac(self, data: bytes, /) -> bytes:
        """Return the MAC of *data* at full length."""
        ...

    def encapsulate(self) -> tuple[bytes, bytes]:
        """Return a fresh shared secret and its encapsulation (FIPS 203, 7.2)."""
        ...

    def decapsulate(self, ciphertext: bytes, /) -> bytes:
        """
        Return the shared secret of an encapsulation (FIPS 203, section 7.3).

        One that was changed gives another secret, without an error.

        Raises:
            InputSizeError: It is not as long as the algorithm's encapsulations; the
                field is ``ciphertext``.
            DecryptionError: A composite's only: the traditional part is no public key
                of its curve.
        """
        ...

    def agree(self, peer_public_der: bytes, /) -> bytes:
        """
        Return the shared secret Z of ECDH (SP 800-56A, section 5.7.1.2; RFC 7748).

        Args:
            peer_public_der: SubjectPublicKeyInfo of the same curve.

        Raises:
            InvalidInputError: It is not a public key of this curve, or the result is
                all zeros (RFC 7748, section 6.1).
        """
        ...

    def derive(self, salt: bytes, info: bytes, length: int, /) -> bytes:
        """Return *length* bytes of HKDF (RFC 5869) over an HKDF key."""
        ...

    def wrap(self, data: bytes, /, *, padded: bool) -> bytes:
        """
        Return *data* wrapped by AES-KWP if *padded*, else AES-KW (SP 800-38F).

        Raises:
            InputSizeError: *data* can't be wrapped so: KW takes 16 bytes or more in
                steps of 8, KWP 1 byte or more.
        """
        ...

    def unwrap(self, wrapped: bytes, /, *, padded: bool) -> bytes:
        """
        Return what `wrap` was given.

        Raises:
            DecryptionError: Anything is wrong.
        """
        ...


class CryptoProvider(Protocol):
    """
    A library that serves some algorithms.

    Material is the private form of a key in bytes: PKCS#8 DER for asymmetric
    algorithms (with the seed for ML-KEM and ML-DSA: RFC 9935, RFC 9881, section 6), the
    bare key for symmetric ones.
    """

    @property
    def name(self) -> str:
        """Short name, used in settings."""
        ...

    @property
    def version(self) -> str:
        """Version of the library underneath."""
        ...

    def algorithms(self) -> frozenset[Algorithm]:
        """Return what this provider can serve on this machine."""
        ...

    def generate(self, algorithm: Algorithm, entropy: Entropy, /) -> bytes:
        """Return fresh material."""
        ...

    def load(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """
        Load material that we made and have just authenticated, without costly checks.

        Raises:
            InvalidInputError: It is not material of this algorithm.
        """
        ...

    def load_foreign(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """Load material from elsewhere, fully checked; else as `load`."""
        ...

    def load_public(self, algorithm: Algorithm, public_der: bytes, /) -> KeyHandle:
        """Load SubjectPublicKeyInfo, fully checked."""
        ...


class ProviderPlugin(msgspec.Struct, frozen=True, kw_only=True):
    """
    Object of an entry point in the group ``hsm_core.crypto_providers``.

    The entry point's name is the provider's name in settings. A plug-in of another
    distribution is loaded only if the setting ``providers`` names it.

    Attributes:
        open: Returns the provider. Called once, when an algorithm first needs it. A
            provider without its library returns no algorithms, and may state the
            reason in an attribute ``absence``.
        preferred: Families that it serves before the built-in providers. It serves
            other algorithms after them.
        needs_enabling: Whether a setting must enable it.
    """

    open: Callable[[], CryptoProvider]
    preferred: frozenset[Family] = frozenset()
    needs_enabling: bool = False
